"""Where images come from. One file per kind of source; `open_source` picks by the address.

A new kind is a new file with an `open_…` function that returns None for addresses that are not its own, and one name
in `OPENERS`.
"""

from __future__ import annotations

from sdlora.data.sources.base import Item, Opener, Source, UnreadableItemError
from sdlora.data.sources.folder import open_folder
from sdlora.data.sources.saved_dataset import open_saved_dataset
from sdlora.errors import DataError

OPENERS: tuple[Opener, ...] = (open_saved_dataset, open_folder)


def open_source(uri: str) -> Source:
    """The source at a path or URI.

    Raises:
        DataError: nothing is there, or it is of no known kind.
    """
    for opener in OPENERS:
        source = opener(uri)
        if source is not None:
            return source
    raise DataError(
        f"data.sources: {uri!r} is of no kind that can be collected. Give a folder of images, or a Hugging Face "
        "dataset saved with `save_to_disk`."
    )


__all__ = ["OPENERS", "Item", "Opener", "Source", "UnreadableItemError", "open_source"]
