"""Files that ship inside the package: the embedded base model and the demo images."""
