"""Prefect flows, which only compose tasks."""
