"""Load a pinned base model, or build one from its parts."""
