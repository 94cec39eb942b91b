"""Decoding of untrusted bytes to the pixels that a person sees."""
