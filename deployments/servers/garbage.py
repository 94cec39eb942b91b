"""Pace of the garbage collector: seldom in commands and runs, often in processes that live for months."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_THRESHOLDS = (700, 10, 10)  # Python's own


def collect_garbage_seldom() -> None:
    """Run the garbage collector seldom from now on, and not at the end of this process.

    The imports of PyTorch, the model libraries, Prefect and MLflow create half a million lasting objects. Searching
    these for reference cycles takes a fifth of the imports' time, and the same search at the end another second.
    """
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)


def collect_garbage_often() -> None:
    """Set Python's own pace of the garbage collector again, without another search of what was imported so far.

    Commands end soon and collect seldom. `sdlora up` lives for months. At the pace of
    commands, 30 requests to Prefect left 21 MB in a process, at Python's 1 MB (docs/experiments.md). Python also puts a
    full collection off until a quarter of all objects are new. What was imported is frozen, so it is not counted.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect no garbage in the block, which imports, and leave out of later collections what the block created."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
