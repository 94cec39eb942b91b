"""Inputs of the network: images and captions as latents and embeddings, their order and their batches."""
