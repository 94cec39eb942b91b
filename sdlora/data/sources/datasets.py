"""Hugging Face datasets: streamed from the hub, as Parquet files that hold images, or saved on disk.

`hf://datasets/owner/name@revision` is the dataset as its loader returns it. `?split=train&config=…` selects a part.
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
"""Reader of the path that a row may hold in its image column. Raises UnreadableItemError."""


def open_hub_dataset(uri: str, context: SourceContext) -> Source | None:
    """Open a dataset of the hub; None for other addresses.

    A branch or tag is resolved to a commit once, so that a pass never mixes two states of the dataset.

    Raises:
        DataError: the hub cannot be reached, or the dataset, revision, configuration or image column does not exist.
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
    except Exception as error:  # the hub's client and every loader raise error types of their own
        raise DataError(
            f"data.sources: {uri!r} cannot be loaded: {type(error).__name__}: {error}. Check the name, the revision, "
            "?config= and ?split=, the network, and HF_TOKEN where the dataset is gated."
        ) from error
    tables = dict(dataset) if isinstance(dataset, Mapping) else {options["split"]: dataset}
    return streamed(uri, match["name"].rpartition("/")[2], tables, stamp=str(commit))


def open_image_parquet(uri: str, context: SourceContext) -> Source | None:
    """Open Parquet files with a column of images, as `datasets` writes them; None for other suffixes.

    A pattern such as `train-*.parquet` is one source of many files.

    Raises:
        DataError: nothing is at the address, a file is not Parquet, or a file has no image column.
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
    except Exception as error:  # a damaged file can raise any error of Arrow
        raise DataError(
            f"data.sources: {uri!r} cannot be loaded: {type(error).__name__}: {error}. Check the path and the files."
        ) from error
    name = files[0].name if len(files) == 1 else uri.rpartition("/")[2]
    file_stamps = " ".join(f"{file.name} {file.stamp}" for file in files)
    return streamed(uri, name, {"rows": table}, stamp=address_key(file_stamps)[:16])


def open_saved_dataset(uri: str, context: SourceContext) -> Source | None:
    """Open a dataset that `save_to_disk` wrote, with all of its splits; None if the path is no such folder.

    Raises:
        DataError: the dataset cannot be loaded or has no image column or no rows.
    """
    root = local_path(uri)
    if root is None or not any((root / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return None
    import datasets

    try:
        dataset = datasets.load_from_disk(str(root))
    except Exception as error:  # a damaged file can raise any error of Arrow or JSON
        raise DataError(f"data.sources: the dataset {uri!r} cannot be loaded: {error}. Save it again.") from error
    tables = dict(dataset) if isinstance(dataset, datasets.DatasetDict) else {"rows": dataset}
    count = sum(len(table) for table in tables.values())
    if not count:
        raise DataError(f"data.sources: the dataset {uri!r} has no rows, expected images. Save it again, with rows.")
    columns = {split: _columns(table.features, uri, names=()) for split, table in tables.items()}

    def items() -> Iterator[Item]:
        for split, table in sorted(tables.items()):
            stamp = getattr(table, "_fingerprint", None)  # of all rows, and unchanged if the same rows are saved again
            yield from _items(split, table.with_format(None), columns[split], stamp, _read_local)

    return Source(name=root.resolve().name, key=address_key(str(root.resolve())), count=count, items=items)


def streamed(uri: str, name: str, tables: Mapping[str, Any], stamp: str) -> Source:
    """Return a source of streamed tables, one split after another.

    Args:
        stamp: changes when any row changes.

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
    except Exception as error:  # a damaged or missing file can raise any error of Arrow and the loaders
        raise DataError(
            f"data.sources: {uri!r} cannot be read: {type(error).__name__}: {error}. Check the dataset's files."
        ) from error
    return features


def _columns(features: Mapping[str, Any], uri: str, names: tuple[str, ...]) -> tuple[str, list[str]]:
    """Return the column of images and the columns of captions and rights.

    Args:
        names: names of image columns, tried if no column has the type of an image.
    """
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
    """Return the bytes of an undecoded image cell, {"bytes": …, "path": …}."""
    if cell is None:
        raise UnreadableItemError("the row has no image")
    return Content(bytes(cell["bytes"]) if cell.get("bytes") is not None else read_path(str(cell["path"])), stamp)


def _read_local(path: str) -> bytes:
    """Read a local file. Remote files of a saved dataset are not fetched."""
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
