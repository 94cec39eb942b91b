"""The record of runs and the registry of adapters, in MLflow. No other module imports mlflow."""

from __future__ import annotations

from tasks.tracking.registry import CANDIDATE, CHAMPION, AdapterVersion, Registry
from tasks.tracking.run import TrackedRun, tracked_run
from tasks.tracking.store import tracking_uri

__all__ = ["CANDIDATE", "CHAMPION", "AdapterVersion", "Registry", "TrackedRun", "tracked_run", "tracking_uri"]
