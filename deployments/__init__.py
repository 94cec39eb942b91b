"""Command line, local servers, Prefect deployments and their configurations."""
