"""Memory that glibc keeps for a process after it is freed."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

# malloc.h of glibc; the values are in bytes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD, LARGEST_TRIM_THRESHOLD = 32 * 2**20, 2**31 - 1


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks of up to 32 MiB for the rest of this process; call it in processes of sdlora only.

    By default glibc returns most of the memory of a training step to the kernel, and every page is cleared and mapped
    again at the next step. With the embedded base this costs a third more page faults and about a twentieth of a
    step's time, at the same peak. glibc cannot tell its thresholds, and it stops adjusting them once they are set. So
    the library does not set them in the process of its caller. Other C libraries are left unchanged.
    """
    library = _glibc()
    if library is not None:
        library.mallopt(_M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        library.mallopt(_M_TRIM_THRESHOLD, LARGEST_TRIM_THRESHOLD)


def thresholds_of_children() -> dict[str, str]:
    """Return the variables by which glibc applies `keep_freed_memory` to a process at its start."""
    return {
        "MALLOC_MMAP_THRESHOLD_": str(LARGEST_MMAP_THRESHOLD),
        "MALLOC_TRIM_THRESHOLD_": str(LARGEST_TRIM_THRESHOLD),
    }


def thresholds_of_servers() -> dict[str, str]:
    """Return the variables by which glibc gives freed memory back in a server that lives for months.

    They undo `thresholds_of_children`. Threads share one heap, because each heap of its own keeps gaps
    (docs/experiments.md, memory of worker and Prefect server).
    """
    start = str(2**17)  # glibc's own value, before it adjusts it
    return {"MALLOC_MMAP_THRESHOLD_": start, "MALLOC_TRIM_THRESHOLD_": start, "MALLOC_ARENA_MAX": "1"}


def return_freed_memory() -> None:
    """Return the freed memory to the kernel, once; without glibc nothing happens."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> Any:
    """Return the C library if it is glibc."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
