"""Validation, samples and the choice of the adapter to keep."""
