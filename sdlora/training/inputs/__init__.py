"""What the network is shown: images and captions as latents and embeddings, in what order, in which batches."""
