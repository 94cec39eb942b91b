"""Collect images, clean them, and freeze snapshots of them.

    with ImageStore.open(home) as store:
        collect(store, "my-images", config)
        clean(store, config)
        snapshot = make_snapshot(store, config)

The names import their libraries when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdlora.data.changes import SnapshotChanges, changes_since_snapshot, compare_snapshots
    from sdlora.data.cleaning import CleanReport, Rejection, clean
    from sdlora.data.collecting import CollectReport, SkippedFile, collect
    from sdlora.data.config import DataConfig
    from sdlora.data.pixels import load_images_uint8
    from sdlora.data.snapshot import Snapshot, SnapshotRow, latest_snapshot, load_snapshot, make_snapshot

__all__ = [
    "CleanReport",
    "CollectReport",
    "DataConfig",
    "Rejection",
    "SkippedFile",
    "Snapshot",
    "SnapshotChanges",
    "SnapshotRow",
    "changes_since_snapshot",
    "clean",
    "collect",
    "compare_snapshots",
    "latest_snapshot",
    "load_images_uint8",
    "load_snapshot",
    "make_snapshot",
]

_NAMES = {
    "changes": ("SnapshotChanges", "changes_since_snapshot", "compare_snapshots"),
    "cleaning": ("CleanReport", "Rejection", "clean"),
    "collecting": ("CollectReport", "SkippedFile", "collect"),
    "config": ("DataConfig",),
    "pixels": ("load_images_uint8",),
    "snapshot": ("Snapshot", "SnapshotRow", "latest_snapshot", "load_snapshot", "make_snapshot"),
}
# No module may be named like a function here: importing it would put the module in the function's place.
_HOMES = {name: f"sdlora.data.{module}" for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
