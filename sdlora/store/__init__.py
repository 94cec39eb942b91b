"""The image database: what is known of every image, and its bytes, in one folder that can be moved.

The names are imported when they are first used: whoever needs the bytes alone need not load a database's library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdlora.store.image_store import ImageStore
    from sdlora.store.records import Caption, Counts, ImageRecord, Origin, Split, Verdict

__all__ = ["Caption", "Counts", "ImageRecord", "ImageStore", "Origin", "Split", "Verdict"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("sdlora.store.image_store" if name == "ImageStore" else "sdlora.store.records"), name)
