"""Models that MLflow stores for registered versions, and their deletion."""

from __future__ import annotations

import logging

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tasks.tracking.artifacts import delete_artifacts


def delete_unregistered_models(client: MlflowClient, run_id: str) -> None:
    """Delete the models of a run that no registered version refers to, with their files.

    A publishing that is killed between storing and registering leaves such a model. A failure is only logged, because
    the version that was published meanwhile is complete.
    """
    try:
        experiment_id = client.get_run(run_id).info.experiment_id
        models = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
        for model in models:
            if not client.search_model_versions(f"source_path = 'models:/{model.model_id}'"):
                delete_artifacts(model.artifact_location, client.tracking_uri)
                client.delete_logged_model(model.model_id)
    except (MlflowException, OSError, NotImplementedError):  # some stores of artifacts cannot delete
        logging.getLogger(__name__).warning(
            "Models of an interrupted publishing could not be deleted; they only take space.", exc_info=True
        )
