"""Foundations of the library: errors, files, references, progress, checkpoints, the base of settings."""
