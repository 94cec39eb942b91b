"""Number of threads of torch, which belongs to the whole process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def restored_threads() -> Iterator[None]:
    """Restore the number of threads of the caller's process at the end of the context."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
