"""Retention: what may be deleted from a state folder, with the reason, and deletion that a kill survives."""
