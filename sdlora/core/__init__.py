"""What every part stands on: errors, files, references, progress, checkpoints, the base of settings."""
