"""Distances between sets of images, and confidence intervals by resampling."""
