"""Base models on disk: sources, layouts, checks and digests."""
