"""Runs before they train: who asks for them, reasons to leave them out, and their turn in the queue."""
