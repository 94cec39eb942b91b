"""Sources of images, one file per kind. `open_source` chooses the kind by the address.

To add a kind, write a file with an `open_…` function and add the function's name to `OPENERS`. The function returns
None for an address of another kind.
"""

from __future__ import annotations

from importlib import import_module

from sdlora.core.errors import DataError
from sdlora.data.sources.base import (
    Content,
    Item,
    Opener,
    Source,
    SourceContext,
    UnreadableItemError,
    redacted,
)

OPENERS = (
    "url_list.open_url_list",
    "archive.open_archives",
    "generated.open_generated",
    "datasets.open_hub_dataset",
    "datasets.open_image_parquet",
    "datasets.open_saved_dataset",
    "remote.open_remote_folder",
    "folder.open_folder",
)
"""Openers in the order of trial. They are names, so that a module is imported only when its turn comes."""


def open_source(uri: str, context: SourceContext) -> Source:
    """Open the source at a path or URI.

    Raises:
        DataError: nothing is at the address, or no kind of source takes it.
    """
    for name in OPENERS:
        module, _, function = name.partition(".")
        opener: Opener = getattr(import_module(f"sdlora.data.sources.{module}"), function)
        try:
            source = opener(uri, context)
        except OSError as error:  # such as a name that is too long, or a folder that may not be entered
            raise DataError(
                f"data.sources: {redacted(uri)} cannot be read: {error.strerror or error}. Correct the path."
            ) from error
        if source is not None:
            return source
    raise DataError(
        f"data.sources: {uri!r} is of no kind that can be collected. Give a folder of images, an archive, a list of "
        "URLs (.txt, .csv, .parquet), a Hugging Face dataset, or an address that fsspec reads, such as "
        "s3://bucket/folder."
    )


__all__ = ["Content", "Item", "Opener", "Source", "SourceContext", "UnreadableItemError", "open_source"]
