"""Hugging Face datasets, streamed: by hub id with a revision, or Parquet files that hold images.

`hf://datasets/owner/name@revision` is the data set as its loader gives it, with `?split=train&config=…` where needed;
`hf://datasets/owner/name@revision/folder` is a folder of files, see `sdlora.data.sources.remote`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from sdlora.core.errors import DataError
from sdlora.data.sources.base import (
    CAPTION_KEYS,
    RIGHTS_KEYS,
    Content,
    Item,
    Source,
    SourceContext,
    UnreadableItemError,
    address_key,
    already_read,
)
from sdlora.data.sources.metadata import sidecar_of_row
from sdlora.data.sources.source_file import SourceFile, source_files

_HUB = re.compile(r"hf://datasets/(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/?]+))?(?:\?(?P<options>.*))?")


def open_hub_dataset(uri: str, context: SourceContext) -> Source | None:
    """A dataset of the hub; None if the address is none.

    A branch or tag is looked up once and the commit it means is what is read, so a pass never mixes two states.

    Raises:
        DataError: the hub cannot be reached, or there is no such dataset, revision, configuration or image column.
    """
    match = _HUB.fullmatch(uri)
    if match is None:
        return None
    import datasets
    from huggingface_hub import HfApi

    options = {key: values[-1] for key, values in parse_qs(match["options"] or "").items()}
    try:
        commit = HfApi().dataset_info(match["name"], revision=match["revision"]).sha
        loaded = datasets.load_dataset(
            match["name"], options.get("config"), split=options.get("split"), revision=commit, streaming=True
        )
    except Exception as error:  # the hub's client and every loader have errors of their own
        raise DataError(
            f"data.sources: {uri!r} cannot be loaded: {type(error).__name__}: {error}. Check the name, the revision, "
            "?config= and ?split=, the network, and HF_TOKEN where the data set is gated."
        ) from error
    tables = dict(loaded) if isinstance(loaded, Mapping) else {options["split"]: loaded}
    return streamed(uri, match["name"].rpartition("/")[2], tables, stamp=str(commit))


def open_image_parquet(uri: str, context: SourceContext) -> Source | None:
    """Parquet files with a column of images, as `datasets` writes them; `train-*.parquet` means all of them.

    Raises:
        DataError: nothing is there, or a file is no such Parquet.
    """
    if not uri.lower().endswith(".parquet"):
        return None
    files = source_files(uri)
    if files is None:
        return None
    import datasets

    addresses = [file.address for file in files]
    try:
        table = datasets.load_dataset("parquet", data_files={"rows": addresses}, split="rows", streaming=True)
    except Exception as error:  # damaged files raise whatever Arrow raises
        raise DataError(f"data.sources: {uri!r} cannot be loaded: {type(error).__name__}: {error}.") from error
    name = files[0].name if len(files) == 1 else uri.rpartition("/")[2]
    return streamed(uri, name, {"rows": table}, stamp=address_key(" ".join(map(_state, files)))[:16])


def streamed(uri: str, name: str, tables: Mapping[str, Any], stamp: str) -> Source:
    """A source of streamed tables, all splits one after the other.

    Args:
        stamp: changes when any row does.

    Raises:
        DataError: a table has no column of images.
    """
    columns = {split: _columns(table, uri) for split, table in tables.items()}

    def items() -> Iterator[Item]:
        for split, table in sorted(tables.items()):
            yield from _items(split, table, columns[split], stamp)

    return Source(name=name, key=address_key(uri.partition("@")[0]), count=None, items=items)


def _state(file: SourceFile) -> str:
    return f"{file.name} {file.stamp}"


def _columns(table: Any, uri: str) -> tuple[str, list[str]]:
    """The column of images, and those of captions and rights."""
    import datasets

    try:
        features = table.features or table._resolve_features().features
    except Exception as error:  # damaged or missing files raise whatever Arrow and the loaders raise
        raise DataError(f"data.sources: {uri!r} cannot be read: {type(error).__name__}: {error}.") from error
    image = next((name for name, feature in features.items() if isinstance(feature, datasets.Image)), None)
    image = image or next((name for name in ("image", "img", "jpg", "png") if name in features), None)
    if image is None:
        found = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items())
        raise DataError(f"data.sources: {uri!r} has no column of images, found {found}.")
    return image, [name for name in (*CAPTION_KEYS, *RIGHTS_KEYS) if name in features]


def _items(split: str, table: Any, columns: tuple[str, list[str]], stamp: str) -> Iterator[Item]:
    import datasets

    image, others = columns
    rows = table.select_columns([image, *others]).cast_column(image, datasets.Image(decode=False))
    for index, row in enumerate(rows):
        yield Item(
            path=f"{split}/{index:08d}",
            stamp=stamp,
            read=partial(_read, row[image], stamp),
            sidecar=already_read(sidecar_of_row(row, "dataset")),
            caption_stamp=stamp,
        )


def _read(cell: Mapping[str, Any] | None, stamp: str, _: str | None = None) -> Content:
    if cell is None:
        raise UnreadableItemError("the row has no image")
    if cell.get("bytes") is not None:
        return Content(bytes(cell["bytes"]), stamp)
    import fsspec

    try:
        with fsspec.open(str(cell["path"]), "rb") as file:
            return Content(bytes(file.read()), stamp)
    except Exception as error:  # drivers raise errors of their own beside OSError
        raise UnreadableItemError(f"{type(error).__name__}: {error}") from error
