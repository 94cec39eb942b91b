"""Distances between sets of pictures, and intervals by resampling."""
