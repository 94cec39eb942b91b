"""Collect images, clean them, and freeze snapshots of them.

    with ImageStore.open(home) as store:
        collect(store, "my-images", config)
        clean(store, config)
        snapshot = make_snapshot(store, config)

The names import their libraries when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlora.core.lazy import names_on_first_use

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
_HOMES = {name: f"sdlora.data.{module}" for module, names in _NAMES.items() for name in names}

__getattr__ = names_on_first_use(__name__, _HOMES)
