"""The command line, the local servers, the Prefect deployments and their configurations."""
