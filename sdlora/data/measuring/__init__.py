"""Measuring of many images (scores, fingerprints) in worker processes or on other machines."""
