"""Base models on disk: where they come from, their layouts, checks and digests."""
