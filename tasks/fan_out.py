"""Measuring images on many machines: one Prefect task per shard on a Dask cluster, found by SDLORA_DASK_ADDRESS.

Workers read and write the blob store alone; this process records what they find, so that the database has one writer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prefect import flow, task

from sdlora.core.errors import ConfigError
from sdlora.data.measuring.shards import IMAGES_PER_SHARD, Shard, ShardResults, measure_shard
from sdlora.data.measuring.workers import Measurer, measure_all
from sdlora.store.blobs import BlobStore
from sdlora.store.intake import chunks
from tasks.retries import is_passing_trouble

if TYPE_CHECKING:
    from prefect_dask.task_runners import DaskTaskRunner

    from sdlora.data.measuring.measure import ImageScores

ADDRESS = "SDLORA_DASK_ADDRESS"
_CONNECT_SECONDS = 30


def measurer() -> Measurer:
    """Who measures images: the Dask cluster that the environment names, else this machine."""
    address = os.environ.get(ADDRESS)
    return measure_on_dask(address) if address else measure_all


def measure_on_dask(address: str) -> Measurer:
    """A measurer that hands shards to the workers of the Dask scheduler at `address`.

    Raises:
        ConfigError: prefect-dask is not installed.
    """
    runner = _task_runner(address)

    def measure(
        blobs: BlobStore, sizes: Mapping[str, int], max_pixels: int, background: str = "white"
    ) -> Iterator[ImageScores]:
        shards = [
            Shard(blobs.url, tuple(digests), max_pixels, background)
            for digests in chunks(list(sizes), IMAGES_PER_SHARD)
        ]
        if not shards:
            return
        _require_workers(address)
        results = ShardResults(blobs.url)
        _measure_shards(runner, shards)
        for shard in shards:
            scores = results.read(shard)
            # Workers died over a shard without a result. Here an image that ends its process is told from the others.
            shard_sizes = {sha256: sizes[sha256] for sha256 in shard.shas}
            yield from measure_all(blobs, shard_sizes, max_pixels, background) if scores is None else scores
            results.remove(shard)

    return measure


@task(
    name="measure shard",
    retries=2,
    retry_delay_seconds=10,
    retry_condition_fn=is_passing_trouble,
    persist_result=False,
)
def measure_one_shard(shard: Shard) -> str:
    """On a worker: measure the images of a shard; returns the name of the result."""
    return measure_shard(shard)


def _measure_shards(runner: DaskTaskRunner, shards: list[Shard]) -> None:
    """Run a flow of one task per shard; those whose worker died are left without a result."""
    from distributed import KilledWorker

    # Shards are no parameters of the flow: the server need not keep a million digests.
    @flow(name="measure images", task_runner=runner, persist_result=False)  # type: ignore[arg-type]  # its own futures
    def measure_images(images: int) -> None:
        for future in [measure_one_shard.submit(shard) for shard in shards]:
            try:
                future.result()
            except KilledWorker:
                continue

    measure_images(sum(len(shard.shas) for shard in shards))


def _task_runner(address: str) -> DaskTaskRunner:
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError as error:
        raise ConfigError(f"{ADDRESS} = {address} needs prefect-dask: pip install 'sdlora[dask]'.") from error
    return DaskTaskRunner(address=address, client_kwargs={"timeout": _CONNECT_SECONDS})


def _require_workers(address: str) -> None:
    """Look whether the scheduler answers, before Prefect wraps what is wrong in words of its own."""
    from distributed import Client

    try:
        with Client(address, timeout=_CONNECT_SECONDS, set_as_default=False) as client:
            workers = len(client.scheduler_info(n_workers=-1)["workers"])
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{ADDRESS} = {address}: no Dask scheduler answers there ({error}). Start one with `dask scheduler`, "
            "correct the address, or unset the variable to measure on this machine."
        ) from error
    if not workers:
        raise ConfigError(
            f"{ADDRESS} = {address}: the scheduler has no workers. Start some with `dask worker {address}`, or unset "
            "the variable to measure on this machine."
        )
