"""Cleaning on PostgreSQL and S3: two machines at once come to what one alone would."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select

from sdlora.core.errors import TakedownError
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import make_snapshot
from sdlora.data.takedown import TakedownWatch
from sdlora.store.dataset import Dataset
from sdlora.store.image_store import ImageStore
from sdlora.store.lineage import record_version
from sdlora.store.location import StoreLocation
from sdlora.store.tables.images import SimilarPairTable
from tests.stores import opened_dataset
from tests.unit.data.drawing import drawing, fill_folder

CONFIG = DataConfig(min_train_images=1, min_held_out_images=1)


def _work(home: Path, location: StoreLocation, start: object, folder: Path) -> None:
    with opened_dataset(home, location) as dataset:
        start.wait()
        collect(dataset, str(folder), CONFIG)
        clean(dataset, CONFIG)


def _outcome(dataset: Dataset) -> tuple[int, set[tuple[str, str | None]], int]:
    with dataset.store.read() as session:
        pairs = session.scalar(select(func.count()).select_from(SimilarPairTable))
    kept = sum(image.rejected_by is None for image in dataset.images())
    return kept, {(image.sha256, image.verdict) for image in dataset.images() if image.rejected_by is None}, pairs


def test_two_machines_that_clean_at_once_compare_every_image_with_every_other(
    tmp_path: Path, on_servers: Callable[[], StoreLocation]
) -> None:
    folders = [fill_folder(tmp_path / name, range(8), captions=False) for name in ("small", "large")]
    for seed in range(8):
        drawing(seed, side_px=96).save(folders[1] / f"{seed:04d}.png")  # each looks like one in the other folder
    location = on_servers()
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Event()
    workers = [spawn.Process(target=_work, args=(tmp_path, location, start, folder)) for folder in folders]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    with opened_dataset(tmp_path / "alone") as alone, opened_dataset(tmp_path, location) as together:
        for folder in folders:
            collect(alone, str(folder), CONFIG)
        for dataset in (alone, together):
            clean(dataset, CONFIG)
        assert _outcome(together) == _outcome(alone)
        assert _outcome(alone)[2] >= 8
        # Which side an image falls on depends on its digest alone.
        assert make_snapshot(together, CONFIG).digest == make_snapshot(alone, CONFIG).digest


def test_a_purge_on_one_machine_is_seen_by_a_run_on_another(
    tmp_path: Path, on_servers: Callable[[], StoreLocation]
) -> None:
    location = on_servers()
    with (
        ImageStore.open(tmp_path / "one", location) as one,
        ImageStore.open(tmp_path / "other", location) as other,
    ):
        dataset = one.dataset("icons")
        collect(dataset, str(fill_folder(tmp_path / "images", range(8))), CONFIG)
        clean(dataset, CONFIG)
        snapshot = make_snapshot(dataset, CONFIG)
        watch = TakedownWatch(other, snapshot)
        assert not watch.found(at_once=True)
        gone = snapshot.train[0].sha256
        one.purge(gone, "a takedown", "ana")
        assert watch.found(at_once=True)
        with pytest.raises(TakedownError, match=gone[:12]):
            watch.refuse()
        with other.write() as session, pytest.raises(TakedownError, match=gone[:12]):
            record_version(session, "icons", 1, "a" * 64, snapshot.digest)
