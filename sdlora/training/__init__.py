"""Fine-tuning of an adapter on a snapshot, resumable to the bit."""
