"""The image database: what is known of every image, and its bytes, in one folder that can be moved.

The names are imported when they are first used: whoever needs the bytes alone need not load a database's library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlora.core.lazy import names_on_first_use

if TYPE_CHECKING:
    from sdlora.store.image_store import ImageStore
    from sdlora.store.records import Caption, Counts, ImageRecord, Origin, Split, Verdict

__all__ = ["Caption", "Counts", "ImageRecord", "ImageStore", "Origin", "Split", "Verdict"]

_HOMES = dict.fromkeys(__all__, "sdlora.store.records") | {"ImageStore": "sdlora.store.image_store"}

__getattr__ = names_on_first_use(__name__, _HOMES)
