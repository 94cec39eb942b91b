"""Collection and cleaning of images, and frozen snapshots."""
