"""What decoders remark on damaged files would reach the terminal; Pillow raises the failure anyway."""

from __future__ import annotations

import ctypes
import logging
from contextlib import suppress
from functools import lru_cache

from PIL import _imaging


@lru_cache(maxsize=1)
def silence_decoders() -> None:
    """Keep libtiff and Pillow's log from writing to the terminal of this process; a log that was set up still hears."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints what nobody listens to
    # libtiff writes past Python. A Pillow that is built without it, or hides its names, cannot be told.
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(_imaging.__file__)  # what it is linked with is found through it
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)
