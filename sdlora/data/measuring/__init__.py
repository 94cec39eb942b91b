"""Scores and fingerprints of many images, in worker processes or on other machines."""
