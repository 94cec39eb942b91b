"""What becomes of freed memory while training on a CPU: it stays with the process."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# malloc.h of glibc; the values are in bytes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
_DEFAULT_THRESHOLD, _LARGEST_MMAP_THRESHOLD = 128 * 2**10, 32 * 2**20


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """While active, the C library keeps what a step frees for the next one, beginning with as little as it can.

    Otherwise it hands most of it to the kernel, and every page comes back at the next step, cleared and one by one:
    a third more page faults and about a twentieth of a step's time with the embedded base, for the same peak. Done on
    Linux with glibc; elsewhere nothing.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.malloc_trim(0)  # what the encoders left
    library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    library.mallopt(_M_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        library.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_THRESHOLD)
        library.malloc_trim(0)


def _glibc() -> Any:
    """The C library if it is glibc."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
