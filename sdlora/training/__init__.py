"""Fine-tune an adapter on a snapshot, resumable to the bit."""
