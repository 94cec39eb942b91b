"""Adapter files of diffusers, kohya and other tools: writing, reading, recognition."""
