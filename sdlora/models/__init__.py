"""Base models: pinned Stable Diffusion models, their parts and their files."""
