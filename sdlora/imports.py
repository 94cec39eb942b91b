"""Import large libraries in less time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def garbage_left() -> Iterator[None]:
    """While active, Python does not look for reference cycles.

    PyTorch and the model libraries make half a million objects when they are imported, all of which stay. To look
    through them again and again for garbage takes a quarter of that time (1.2 of 5 s).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
