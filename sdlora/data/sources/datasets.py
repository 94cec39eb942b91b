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
from sdlora.data.config import DataConfig
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
    refused_item,
)
from sdlora.data.sources.deadline import DeadlineError, call_within
from sdlora.data.sources.download import Downloader
from sdlora.data.sources.metadata import sidecar_of_row
from sdlora.data.sources.source_file import source_files
from sdlora.data.threads import TryLaterError

_HUB = re.compile(r"hf://datasets/(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/?]+))?(?:\?(?P<options>.*))?")
_WEB = ("http://", "https://")
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
    return streamed(uri, match["name"].rpartition("/")[2], tables, str(commit), context.config)


def open_image_parquet(uri: str, context: SourceContext) -> Source | None:
    """Open Parquet files with a column of images, as `datasets` writes them; None for other suffixes.

    A pattern such as `train-*.parquet` is one source of many files.

    Raises:
        DataError: nothing is at the address, a file is not Parquet, or a file has no image column.
    """
    if not uri.lower().endswith(".parquet"):
        return None
    files = source_files(uri, context.config.url_total_seconds)
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
    return streamed(uri, name, {"rows": table}, address_key(file_stamps)[:16], context.config)


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
    limit = context.config.max_file_bytes
    read_path = partial(_read_local, limit=limit)

    def items() -> Iterator[Item]:
        for split, table in sorted(tables.items()):
            stamp = getattr(table, "_fingerprint", None)  # of all rows, and unchanged if the same rows are saved again
            yield from _items(split, table.with_format(None), columns[split], stamp, read_path, limit)

    return Source(name=root.resolve().name, key=address_key(str(root.resolve())), count=count, items=items)


def streamed(uri: str, name: str, tables: Mapping[str, Any], stamp: str, config: DataConfig) -> Source:
    """Return a source of streamed tables, one split after another.

    Args:
        stamp: changes when any row changes.

    Raises:
        DataError: a table has no column of images.
    """
    columns = {split: _columns(_features(table, uri), uri, _IMAGE_NAMES) for split, table in tables.items()}

    downloader = Downloader(config)
    read_path = partial(_read_anywhere, downloader=downloader)

    def items() -> Iterator[Item]:
        for split, table in sorted(tables.items()):
            yield from _items(split, table, columns[split], stamp, read_path, config.max_file_bytes)

    return Source(name, address_key(uri.partition("@")[0]), None, items, close=downloader.close)


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
    split: str, table: Any, columns: tuple[str, list[str]], stamp: str | None, read_path: ReadPath, limit: int
) -> Iterator[Item]:
    import datasets

    image, annotation_columns = columns
    rows = table.select_columns([image, *annotation_columns]).cast_column(image, datasets.Image(decode=False))
    index = 0
    try:
        for row in rows:
            yield Item(
                path=f"{split}/{index:08d}",
                stamp=stamp,
                read=partial(_cell_content, row[image], read_path, stamp, limit),
                sidecar=already_read(sidecar_of_row(row, "dataset")),
                caption_stamp=stamp,
            )
            index += 1
    except Exception as error:  # noqa: BLE001  # damaged pages can raise any error of Arrow and the loaders
        yield refused_item(f"{split}/…", f"all rows after the first {index:,}: {type(error).__name__}: {error}")


def _cell_content(
    cell: Mapping[str, Any] | None, read_path: ReadPath, stamp: str | None, limit: int, _: str | None = None
) -> Content:
    """Return the bytes of an undecoded image cell, {"bytes": …, "path": …}."""
    if cell is None or (cell.get("bytes") is None and not cell.get("path")):
        raise UnreadableItemError("the row has no image")
    content = cell.get("bytes")
    return Content(_within_limit(read_path(str(cell["path"])) if content is None else bytes(content), limit), stamp)


def _read_local(path: str, limit: int) -> bytes:
    """Read a local file of at most `limit` bytes. Remote files of a saved dataset are not fetched."""
    try:
        if not Path(path).is_file():
            raise UnreadableItemError(f"{path}: no such file")
        with Path(path).open("rb") as file:
            return file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise UnreadableItemError(f"{path}: {error}") from error


def _read_anywhere(path: str, downloader: Downloader) -> bytes:
    """Read a file in any store. An address of the web is fetched as one of a list is: from the public internet only."""
    import fsspec

    config = downloader.config
    if path.startswith(_WEB):
        try:
            content = downloader.fetch(path)
        except TryLaterError as error:
            raise UnreadableItemError("its host asks to be tried later") from error
        return content.data if content else b""
    if any(part.startswith(_WEB) for part in path.split("::")):
        raise UnreadableItemError("its address leads into a file of the web")

    def read() -> bytes:
        with fsspec.open(path, "rb") as file:
            return bytes(file.read(config.max_file_bytes + 1))

    try:
        return call_within(config.url_total_seconds, read)
    except DeadlineError as error:
        raise UnreadableItemError(f"not complete after url_total_seconds = {config.url_total_seconds:g}") from error
    except Exception as error:  # drivers raise errors of their own, not only OSError
        raise UnreadableItemError(f"{type(error).__name__}: {error}") from error


def _within_limit(content: bytes, limit: int) -> bytes:
    if len(content) > limit:
        raise UnreadableItemError(f"more than max_file_bytes = {limit:,}")
    return content
