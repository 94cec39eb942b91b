"""Files of styles, their deployments in Prefect, and the record of their last inputs."""
