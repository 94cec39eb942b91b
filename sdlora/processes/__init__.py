"""Child processes, signals, memory and costs of this machine."""
