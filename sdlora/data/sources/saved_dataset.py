"""A Hugging Face dataset that lies on disk, as `Dataset.save_to_disk` or `DatasetDict.save_to_disk` left it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

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


def open_saved_dataset(uri: str, context: SourceContext) -> Source | None:
    """A saved dataset by its path, with all of its splits; None if the path is no such folder.

    The image column is found by its type; captions come from a column `text`, `caption`, `captions` or `prompt`.

    Raises:
        DataError: the dataset cannot be loaded or has no image column or no rows.
    """
    root = local_path(uri)
    if root is None or not any((root / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return None
    tables = _load(root, uri)
    count = sum(len(table) for table in tables.values())
    if not count:
        raise DataError(f"data.sources: the dataset {uri!r} has no rows, expected images.")
    columns = {split: _image_column(table, uri) for split, table in tables.items()}

    def items() -> Iterator[Item]:
        for split, table in tables.items():
            yield from _items(split, table, columns[split])

    return Source(name=root.resolve().name, key=address_key(str(root.resolve())), count=count, items=items)


def _load(root: Path, uri: str) -> dict[str, Any]:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(root))
    except Exception as error:  # damaged files raise whatever Arrow and JSON raise
        raise DataError(f"data.sources: the dataset {uri!r} cannot be loaded: {error}. Save it again.") from error
    tables = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"rows": loaded}
    return {split: tables[split] for split in sorted(tables)}


def _image_column(table: Any, uri: str) -> str:
    import datasets

    for name, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            return str(name)
    found = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in table.features.items())
    raise DataError(
        f"data.sources: the dataset {uri!r} has no image column, found {found}. Cast one to datasets.Image."
    )


def _items(split: str, table: Any, image_column: str) -> Iterator[Item]:
    import datasets

    wanted = [image_column, *(name for name in (*CAPTION_KEYS, *RIGHTS_KEYS) if name in table.features)]
    rows = table.select_columns(wanted).cast_column(image_column, datasets.Image(decode=False)).with_format(None)
    fingerprint = getattr(table, "_fingerprint", None)  # of all rows: saving the same rows again keeps it
    for index, row in enumerate(rows):
        yield Item(
            path=f"{split}/{index:08d}",
            stamp=fingerprint,
            read=partial(_read, row[image_column], fingerprint),
            sidecar=already_read(sidecar_of_row(row, "dataset")),
            caption_stamp=fingerprint,
        )


def _read(cell: dict[str, Any] | None, stamp: str | None, _: str | None = None) -> Content:
    """The bytes of an undecoded image cell, {"bytes": …, "path": …}."""
    if cell is None:
        raise UnreadableItemError("the row has no image")
    if cell.get("bytes") is not None:
        return Content(bytes(cell["bytes"]), stamp)
    try:
        return Content(Path(cell["path"]).read_bytes(), stamp)
    except OSError as error:
        raise UnreadableItemError(f"{cell['path']}: {error.strerror}") from error
