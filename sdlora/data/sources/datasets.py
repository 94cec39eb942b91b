"""Hugging Face datasets: streamed from the hub, as Parquet files that hold images, or saved on disk.

`hf://datasets/owner/name@revision` is the data set as its loader gives it, with `?split=train&config=…` where needed;
`hf://datasets/owner/name@revision/folder` is a folder of files, see `sdlora.data.sources.remote`.
Captions come from a column `text`, `caption`, `captions` or `prompt`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
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
    local_path,
)
from sdlora.data.sources.metadata import sidecar_of_row
from sdlora.data.sources.source_file import source_files

_HUB = re.compile(r"hf://datasets/(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/?]+))?(?:\?(?P<options>.*))?")
_IMAGE_NAMES = ("image", "img", "jpg", "png")

ReadPath = Callable[[str], bytes]
"""The bytes at a path that a row has instead of bytes; raises UnreadableItemError."""


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
        dataset = datasets.load_dataset(
            match["name"], options.get("config"), split=options.get("split"), revision=commit, streaming=True
        )
    except Exception as error:  # the hub's client and every loader have errors of their own
        raise DataError(
            f"data.sources: {uri!r} cannot be loaded: {type(error).__name__}: {error}. Check the name, the revision, "
            "?config= and ?split=, the network, and HF_TOKEN where the data set is gated."
        ) from error
    tables = dict(dataset) if isinstance(dataset, Mapping) else {options["split"]: dataset}
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
    file_stamps = " ".join(f"{file.name} {file.stamp}" for file in files)
    return streamed(uri, name, {"rows": table}, stamp=address_key(file_stamps)[:16])


def open_saved_dataset(uri: str, context: SourceContext) -> Source | None:
    """A dataset on disk, as `save_to_disk` left it, with all of its splits; None if the path is no such folder.

    Raises:
        DataError: the dataset cannot be loaded or has no image column or no rows.
    """
    root = local_path(uri)
    if root is None or not any((root / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return None
    import datasets

    try:
        dataset = datasets.load_from_disk(str(root))
    except Exception as error:  # damaged files raise whatever Arrow and JSON raise
        raise DataError(f"data.sources: the dataset {uri!r} cannot be loaded: {error}. Save it again.") from error
    tables = dict(dataset) if isinstance(dataset, datasets.DatasetDict) else {"rows": dataset}
    count = sum(len(table) for table in tables.values())
    if not count:
        raise DataError(f"data.sources: the dataset {uri!r} has no rows, expected images.")
    columns = {split: _columns(table.features, uri, names=()) for split, table in tables.items()}

    def items() -> Iterator[Item]:
        for split, table in sorted(tables.items()):
            stamp = getattr(table, "_fingerprint", None)  # of all rows: saving the same rows again keeps it
            yield from _items(split, table.with_format(None), columns[split], stamp, _read_local)

    return Source(name=root.resolve().name, key=address_key(str(root.resolve())), count=count, items=items)


def streamed(uri: str, name: str, tables: Mapping[str, Any], stamp: str) -> Source:
    """A source of streamed tables, all splits one after the other.

    Args:
        stamp: changes when any row does.

    Raises:
        DataError: a table has no column of images.
    """
    columns = {split: _columns(_features(table, uri), uri, _IMAGE_NAMES) for split, table in tables.items()}

    def items() -> Iterator[Item]:
        for split, table in sorted(tables.items()):
            yield from _items(split, table, columns[split], stamp, _read_anywhere)

    return Source(name=name, key=address_key(uri.partition("@")[0]), count=None, items=items)


def _features(table: Any, uri: str) -> Mapping[str, Any]:
    try:
        features: Mapping[str, Any] = table.features or table._resolve_features().features
    except Exception as error:  # damaged or missing files raise whatever Arrow and the loaders raise
        raise DataError(f"data.sources: {uri!r} cannot be read: {type(error).__name__}: {error}.") from error
    return features


def _columns(features: Mapping[str, Any], uri: str, names: tuple[str, ...]) -> tuple[str, list[str]]:
    """The column of images, by its type or else by one of these names, and the columns of captions and rights."""
    import datasets

    image = next((name for name, feature in features.items() if isinstance(feature, datasets.Image)), None)
    image = image or next((name for name in names if name in features), None)
    if image is None:
        listed = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items())
        raise DataError(
            f"data.sources: the dataset {uri!r} has no image column, found {listed}. Cast one to datasets.Image."
        )
    return image, [name for name in (*CAPTION_KEYS, *RIGHTS_KEYS) if name in features]


def _items(
    split: str, table: Any, columns: tuple[str, list[str]], stamp: str | None, read_path: ReadPath
) -> Iterator[Item]:
    import datasets

    image, annotation_columns = columns
    rows = table.select_columns([image, *annotation_columns]).cast_column(image, datasets.Image(decode=False))
    for index, row in enumerate(rows):
        yield Item(
            path=f"{split}/{index:08d}",
            stamp=stamp,
            read=partial(_cell_content, row[image], read_path, stamp),
            sidecar=already_read(sidecar_of_row(row, "dataset")),
            caption_stamp=stamp,
        )


def _cell_content(
    cell: Mapping[str, Any] | None, read_path: ReadPath, stamp: str | None, _: str | None = None
) -> Content:
    """The bytes of an undecoded image cell, {"bytes": …, "path": …}."""
    if cell is None:
        raise UnreadableItemError("the row has no image")
    return Content(bytes(cell["bytes"]) if cell.get("bytes") is not None else read_path(str(cell["path"])), stamp)


def _read_local(path: str) -> bytes:
    """Of a saved dataset: what lies elsewhere is not fetched for it."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnreadableItemError(f"{path}: {error.strerror}") from error


def _read_anywhere(path: str) -> bytes:
    import fsspec

    try:
        with fsspec.open(path, "rb") as file:
            return bytes(file.read())
    except Exception as error:  # drivers raise errors of their own, not only OSError
        raise UnreadableItemError(f"{type(error).__name__}: {error}") from error
