"""Mathematics of diffusion training: seeds, noise, targets and loss weights; without files or models."""
