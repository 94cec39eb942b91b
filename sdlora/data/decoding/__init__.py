"""Bytes of strangers to the pixels that a person sees."""
