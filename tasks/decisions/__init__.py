"""Decisions on versions: their evidence, later ones, those of people, and MLflow that follows."""
