"""Adapter files of diffusers, kohya and others: written, read, told apart."""
