"""Progress bars of diffusers and transformers, silenced because the caller chooses how to show progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Disable the progress bars of diffusers and transformers inside the context."""
    enabled = [library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()]
    for library in enabled:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in enabled:
            library.enable_progress_bar()
