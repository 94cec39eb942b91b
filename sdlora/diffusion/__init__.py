"""The mathematics of diffusion training: seeds, noise, targets and loss weights. No files, no models."""
