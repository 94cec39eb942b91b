"""Pretraining of a base model from captioned images."""
