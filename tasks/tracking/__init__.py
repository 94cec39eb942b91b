"""Tracking of runs and registry of adapters in MLflow. No other module imports mlflow."""

from __future__ import annotations

from tasks.tracking.champion_sync import alias_state, sync_history
from tasks.tracking.copies import registered_copies
from tasks.tracking.links import RunPage, version_route
from tasks.tracking.registry import Registry
from tasks.tracking.run import TrackedRun, has_run, tracked_run
from tasks.tracking.store import has_records, tracking_uri, version_page
from tasks.tracking.style_page import MAX_DESCRIPTION_LENGTH
from tasks.tracking.versions import CANDIDATE, CHAMPION, AdapterVersion, NoWholeCopyError, RemovedFilesError

__all__ = [
    "CANDIDATE",
    "CHAMPION",
    "MAX_DESCRIPTION_LENGTH",
    "AdapterVersion",
    "NoWholeCopyError",
    "Registry",
    "RemovedFilesError",
    "RunPage",
    "TrackedRun",
    "alias_state",
    "has_records",
    "has_run",
    "registered_copies",
    "sync_history",
    "tracked_run",
    "tracking_uri",
    "version_page",
    "version_route",
]
