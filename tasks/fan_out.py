"""Measuring images on a Dask cluster, which SDLORA_DASK_ADDRESS names: one Prefect task per shard.

Workers read and write only the blob store. This process records their results, so the database has one writer.
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
from sdlora.store.bulk import chunks
from tasks.retries import RETRIED

if TYPE_CHECKING:
    from prefect_dask.task_runners import DaskTaskRunner

    from sdlora.data.measuring.measure import ImageScores

ADDRESS = "SDLORA_DASK_ADDRESS"
_CONNECT_SECONDS = 30


def measurer() -> Measurer:
    """Return the measurer: the Dask cluster that the environment names, else this machine."""
    address = os.environ.get(ADDRESS)
    return measure_on_dask(address) if address else measure_all


def measure_on_dask(address: str) -> Measurer:
    """Return a measurer that submits shards to the Dask scheduler at `address`.

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
            # Workers died over a shard without a result. `measure_all` finds the image that ends its process.
            shard_sizes = {sha256: sizes[sha256] for sha256 in shard.shas}
            yield from measure_all(blobs, shard_sizes, max_pixels, background) if scores is None else scores
            results.remove(shard)

    return measure


@task(
    name="measure shard",
    **RETRIED,
    persist_result=False,
)
def measure_one_shard(shard: Shard) -> str:
    """Measure the images of a shard on a worker; return the result's name."""
    return measure_shard(shard)


def _measure_shards(runner: DaskTaskRunner, shards: list[Shard]) -> None:
    """Run a flow with one task per shard; a shard whose worker died gets no result."""
    from distributed import KilledWorker

    # Shards are not parameters of the flow, so the server does not store a million digests.
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
    """Raise `ConfigError` without a scheduler or workers, before Prefect wraps the cause in messages of its own."""
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
