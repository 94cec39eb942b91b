"""Worker processes for measuring images on all cores, and for other parallel work.

An image that crashes or hangs its process gets a problem of its own; all other images are measured.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache, partial
from multiprocessing import forkserver
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from sdlora.data.decoding.decode import Decoded
from sdlora.data.measuring.measure import ImageScores, measure_many, score_decoded
from sdlora.processes.memory import keep_freed_memory

if TYPE_CHECKING:
    from sdlora.store.blobs import BlobStore

_IMAGES_PER_CHUNK = 64  # measured in one call; smaller chunks cost more per small image
_CHUNKS_AHEAD_PER_CORE = 12  # results wait in memory until they are consumed
_BLAS_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # read by numpy at import
_SECONDS_PER_CHUNK = 300.0
_SECONDS_PER_IMAGE = 60.0
_MIN_CALLS_FOR_POOL = 4  # for fewer calls, sending them takes longer than it saves

Measure = Callable[[Sequence[str]], Iterable[ImageScores]]


class Measurer(Protocol):
    """Function that measures the images of a blob store, given their sizes by SHA-256, in the given order."""

    def __call__(
        self, blobs: BlobStore, sizes: Mapping[str, int], max_pixels: int, background: str = "white"
    ) -> Iterator[ImageScores]: ...


def measure_all(
    blobs: BlobStore, sizes: Mapping[str, int], max_pixels: int, background: str = "white"
) -> Iterator[ImageScores]:
    """Measure images in the given order, in worker processes if there is enough work.

    Args:
        blobs: store of the bytes.
        sizes: bytes of each image by SHA-256.
        max_pixels: images with more pixels by their header are not decoded.
        background: colour behind transparent parts.

    Raises:
        DataError: the bytes of an image are missing or damaged.
    """
    work = partial(measure_blobs, blobs.url, max_pixels, background)
    if _is_worth_a_pool(sizes.values()):
        yield from measure_in_processes(work, list(sizes), background)
    else:
        yield from work(list(sizes))


def measure_blobs(url: str, max_pixels: int, background: str, shas: Sequence[str]) -> Iterator[ImageScores]:
    """Measure images of the blob store at `url`, in the given order."""
    blobs = _blob_store(url)
    return measure_many(((sha256, blobs.get(sha256)) for sha256 in shas), max_pixels, background)


def measure_in_processes(work: Measure, shas: Sequence[str], background: str) -> Iterator[ImageScores]:
    """Apply `work`, which must be picklable, to the SHA-256s in worker processes; yield results in the same order.

    This process does all the work if no other can be started (the caller's script has no `__main__` guard).
    """
    pool = start_pool()
    if pool is None:
        yield from work(shas)
        return
    image_chunks = (shas[start : start + _IMAGES_PER_CHUNK] for start in range(0, len(shas), _IMAGES_PER_CHUNK))
    running: deque[tuple[Sequence[str], Future[list[ImageScores]]]] = deque()
    try:
        while True:
            for chunk in image_chunks:
                running.append((chunk, pool.submit(_measure_chunk, work, chunk)))
                if len(running) >= _CHUNKS_AHEAD_PER_CORE * available_cores():
                    break
            if not running:
                return
            try:
                results = running[0][1].result(timeout=_SECONDS_PER_CHUNK)
            except (BrokenProcessPool, TimeoutError):
                _kill_workers(pool)
                # One of the running chunks caused it. Unfinished chunks are measured image by image, to find the cause.
                for chunk, future in running:
                    is_done = future.done() and future.exception() is None
                    yield from future.result() if is_done else _one_by_one(work, chunk, background)
                running.clear()
                pool = start_pool() or _raise_no_pool()
                continue
            running.popleft()
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)


def _one_by_one(work: Measure, shas: Sequence[str], background: str) -> Iterator[ImageScores]:
    pool = start_pool(1) or _raise_no_pool()
    for sha256 in shas:
        try:
            yield from pool.submit(_measure_chunk, work, [sha256]).result(timeout=_SECONDS_PER_IMAGE)
        except (BrokenProcessPool, TimeoutError) as error:
            _kill_workers(pool)
            pool = start_pool(1) or _raise_no_pool()
            if isinstance(error, TimeoutError):
                problem = f"decoding takes longer than {_SECONDS_PER_IMAGE:.0f} s"
            else:
                problem = "decoding ends the process: a crash of the image library, or more memory than there is"
            yield from score_decoded([sha256], [Decoded(None, None, problem)], background)
    pool.shutdown()


def _measure_chunk(work: Measure, shas: Sequence[str]) -> list[ImageScores]:
    return list(work(shas))


@lru_cache(maxsize=4)
def _blob_store(url: str) -> BlobStore:
    from sdlora.store.blobs import BlobStore

    return BlobStore(url)  # cached: finding the file system of a URL takes as long as decoding an icon


class ParallelMap:
    """Parallel `map` in worker processes if there is enough work: the same results in the same order.

    A context manager that stops its processes on exit.
    """

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._can_start_pool = available_cores() > 1 and not multiprocessing.current_process().daemon

    def __call__(self, work: Callable[..., Any], *arguments: Iterable[Any]) -> Iterator[Any]:
        """Apply `work`, which must be picklable, to each set of arguments."""
        columns = [list(values) for values in arguments]
        if self._can_start_pool and len(columns[0]) >= _MIN_CALLS_FOR_POOL:
            self._pool = self._pool or start_pool()
            self._can_start_pool = self._pool is not None
            if self._pool is not None:
                try:
                    return iter(list(self._pool.map(work, *columns)))
                except BrokenProcessPool:  # this process does the work instead, more slowly
                    self._can_start_pool = False
        return map(work, *columns)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def start_pool(processes: int | None = None) -> ProcessPoolExecutor | None:
    """Start a pool of worker processes, by default one per core; None if no process can be started."""
    # A child forked from a process with PyTorch's threads can hang. The fork server is a separate process without
    # threads, which loads the libraries once for all workers.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    _start_fork_server()
    count = processes or available_cores()
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_init_worker, initargs=(dict(os.environ),))
    try:
        # One call per process, so that all of them start at the same time.
        for started in [pool.submit(os.getpid) for _ in range(count)]:
            started.result()
    except BrokenProcessPool:
        pool.shutdown()
        return None
    return pool


def _start_fork_server() -> None:
    """Start the fork server without BLAS threads.

    Every core has a worker already, and threads that wait for each other take more time.
    """
    environment_before = {name: os.environ.get(name) for name in _BLAS_THREADS}
    os.environ.update(dict.fromkeys(_BLAS_THREADS, "1"))
    try:
        forkserver.ensure_running()
    finally:
        for name, value in environment_before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _init_worker(environment: dict[str, str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the workers
    os.environ.update(environment)  # the fork server has an older one, perhaps without new keys of an object store
    keep_freed_memory()  # for the next stack of images: returning memory takes a fifth of the time


def _kill_workers(pool: ProcessPoolExecutor) -> None:
    for process in list((getattr(pool, "_processes", None) or {}).values()):  # Python 3.14 has kill_workers()
        process.kill()
    pool.shutdown(cancel_futures=True)


def _raise_no_pool() -> ProcessPoolExecutor:
    raise RuntimeError("Worker processes could be started before and cannot any more: the system may lack memory.")


def _is_worth_a_pool(sizes: Collection[int]) -> bool:
    # About 0.25 ms an image and 75 ns a byte on one core; workers take half a second to start.
    seconds = 0.00025 * len(sizes) + 75e-9 * sum(sizes)
    return seconds > 2 and available_cores() > 1 and not multiprocessing.current_process().daemon


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))
