"""Comparison of everything that has a digest with its digest, and repair from whole copies."""
