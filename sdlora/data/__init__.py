"""Collect images, clean them, and freeze snapshots of them."""
