"""Pages of runs and versions in Prefect and MLflow, as Markdown."""
