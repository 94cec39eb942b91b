"""Make a base model from nothing but captioned images."""
