"""Stage 2: freeze what the next adapter learns from."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from sdlora.artifacts import SnapshotRef
from sdlora.data import CleanReport, DataConfig
from sdlora.data import make_snapshot as make
from sdlora.store import ImageStore
from tasks.data_page import publish_data_page


@task(name="make snapshot", persist_result=False)
def make_snapshot(cleaned: CleanReport, config: DataConfig, home: Path) -> SnapshotRef:
    """The accepted images with captions and split; the same images give the same digest.

    The data page is written in any case: it tells best why there may be too few images.
    """
    with ImageStore.open(home) as store:
        digest = None
        try:
            snapshot = make(store, config)
            digest = snapshot.digest
        finally:
            publish_data_page(store, config, home, digest)
    return SnapshotRef(digest=snapshot.digest, train_count=len(snapshot.train), held_out_count=len(snapshot.held_out))
