"""Local servers and the worker: their processes, addresses, passwords, logs and health."""
