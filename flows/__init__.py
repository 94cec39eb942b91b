"""Prefect flows. They only compose tasks."""
