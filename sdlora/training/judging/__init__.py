"""How good the adapter is while it learns, seen and measured, and which of its states is kept."""
