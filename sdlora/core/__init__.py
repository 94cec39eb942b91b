"""Foundations of the library: errors, files, references, progress, checkpoints, schedules, the base of settings."""
