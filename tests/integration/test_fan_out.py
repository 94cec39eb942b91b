"""Measuring images on a real Dask scheduler with two workers, started here on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prefect import flow

from sdlora.core.errors import ConfigError, DataError
from sdlora.data.clean import clean
from sdlora.data.config import ResolvedData
from sdlora.data.measuring import shards as shard_files
from sdlora.data.measuring.shards import Shard, ShardResults
from sdlora.store.image_store import ImageStore
from tasks import collect, fan_out
from tests.unit.data.drawing import drawing, encoded, icon
from tests.waiting import PATIENCE_SECONDS, wait_until

CONFIG = ResolvedData(dataset="icons", min_train_images=1, min_held_out_images=1)
PROJECT = Path(__file__).parents[2]


@dataclass
class Cluster:
    address: str
    workers: list[subprocess.Popen[bytes]]


def _dask(*arguments: str, log: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "DASK_DISTRIBUTED__DIAGNOSTICS__NVML": "false"}
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]],
            env=environment,
            stdout=output,
            stderr=output,
            cwd=log.parent,
        )


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    from distributed import Client

    file = tmp_path / "scheduler.json"
    scheduler = _dask(
        "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file),
        log=tmp_path / "scheduler.log",
    )  # fmt: skip
    workers: list[subprocess.Popen[bytes]] = []
    try:
        address = wait_until(lambda: _address_in(file), "the start of the scheduler")
        for number in range(2):
            options = ("--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard")
            workers.append(_dask("worker", address, *options, log=tmp_path / f"worker-{number}.log"))
        with Client(address, timeout=PATIENCE_SECONDS, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=PATIENCE_SECONDS)
        yield Cluster(address, workers)
    finally:
        for process in [*workers, scheduler]:
            process.kill()
            process.wait()


def _address_in(file: Path) -> str | None:
    try:
        return str(json.loads(file.read_text())["address"])
    except (FileNotFoundError, ValueError):  # not there, or half of it
        return None


def _fill(home: Path, count: int) -> ImageStore:
    store = ImageStore.open(home)
    dataset = store.dataset("icons")
    for seed in range(count):
        dataset.add_image(encoded(drawing(seed) if seed % 2 else icon(seed)))
    dataset.add_image(encoded(drawing(1), "JPEG", quality=60))
    dataset.add_image(b"this is no picture")
    return store


def _verdicts(store: ImageStore) -> dict[str, tuple[str | None, str | None, str | None, int | None]]:
    images = store.dataset("icons").images()
    return {image.sha256: (image.verdict, image.rejected_by, image.reason, image.width) for image in images}


def _clean_in_a_flow(home: Path) -> None:
    @flow
    def work() -> None:
        collect.clean_images((), CONFIG, home)

    work()


@pytest.mark.slow
def test_a_cluster_finds_what_this_machine_finds_and_a_lost_worker_loses_nothing(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _fill(tmp_path / "here", 60) as here:
        clean(here.dataset("icons"), CONFIG)
        expected = _verdicts(here)
    monkeypatch.setattr(fan_out, "IMAGES_PER_SHARD", 5)
    monkeypatch.setenv(fan_out.ADDRESS, cluster.address)
    with _fill(tmp_path / "there", 60) as there:
        killed: list[float] = []
        written = fan_out._measure_shards

        def kill_one_worker_on_the_way(runner: object, shards: list[Shard]) -> None:
            import threading

            def kill() -> None:
                while not list((there.home / "blobs" / "measured").glob("[0-9a-f]*")):
                    time.sleep(0.02)
                cluster.workers[0].kill()
                killed.append(time.monotonic())

            thread = threading.Thread(target=kill)
            thread.start()
            written(runner, shards)
            thread.join()

        monkeypatch.setattr(fan_out, "_measure_shards", kill_one_worker_on_the_way)
        _clean_in_a_flow(there.home)
        assert killed
        assert _verdicts(there) == expected
        assert not list((there.home / "blobs" / "measured").iterdir())  # recorded results are not kept


@pytest.mark.slow
def test_a_lost_image_fails_the_run_by_its_name(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(fan_out.ADDRESS, cluster.address)
    with _fill(tmp_path / "there", 3) as store:
        lost = store.dataset("icons").images()[1].sha256
        (store.home / "blobs" / lost[:2] / lost).unlink()
        with pytest.raises(DataError, match=lost):
            _clean_in_a_flow(store.home)


def test_an_address_without_a_scheduler_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(fan_out.ADDRESS, "tcp://127.0.0.1:9")
    monkeypatch.setattr(fan_out, "_CONNECT_SECONDS", 1)
    with _fill(tmp_path / "there", 2) as store:
        with pytest.raises(ConfigError, match=r"SDLORA_DASK_ADDRESS = tcp://127\.0\.0\.1:9.*unset the variable"):
            _clean_in_a_flow(store.home)
        monkeypatch.delenv(fan_out.ADDRESS)
        _clean_in_a_flow(store.home)
        assert store.dataset("icons").counts().pending == 0


def test_a_result_comes_back_as_it_was_written_and_a_torn_one_is_made_again(tmp_path: Path) -> None:
    with _fill(tmp_path / "home", 6) as store:
        shard = Shard(store.blobs.url, tuple(image.sha256 for image in store.dataset("icons").images()), 10**6, "white")
        results = ShardResults(store.blobs.url)
        assert results.read(shard) is None
        assert shard_files.measure_shard(shard) == shard.digest
        first = results.read(shard)
        assert first is not None
        assert [one.sha256 for one in first] == list(shard.shas)
        assert sum(one.fingerprint is not None for one in first) == 7
        path = store.home / "blobs" / "measured" / shard.digest
        whole = path.read_bytes()
        path.write_bytes(whole[:-40])
        assert results.read(shard) is None
        shard_files.measure_shard(shard)
        assert results.read(shard) == first
        assert path.read_bytes() == whole
        assert Shard(shard.blobs_url, shard.shas, 10**6, "black").digest != shard.digest
