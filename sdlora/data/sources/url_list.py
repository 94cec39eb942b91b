"""Lists of image URLs: `.txt` with a URL per line, or a column of `.csv`, `.tsv`, `.jsonl` or `.parquet`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sdlora.core.errors import DataError
from sdlora.data.sources.base import (
    Content,
    Item,
    Source,
    SourceContext,
    UnreadableItemError,
    address_key,
    already_read,
    local_path,
    printable,
)
from sdlora.data.sources.metadata import METADATA_NAMES, sidecar_of_row
from sdlora.data.sources.signed_urls import SharedNames, file_behind, survey_urls

if TYPE_CHECKING:
    from sdlora.data.sources.download import Downloader

URL_KEYS = ("url", "image_url", "URL", "link", "src")
SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")
_ROWS_PER_BATCH = 1000

Row = Mapping[str, object]


def open_url_list(uri: str, context: SourceContext) -> Source | None:
    """Open a list of URLs; None if the path is no such file.

    Captions, licence and origin come from columns named as in `metadata.jsonl`. Images that were fetched before are
    skipped, unless `recheck_urls` is set: then each host is asked for changes. Signatures and tokens in a URL are sent
    but never recorded, so an image is recognised under a new signature.

    Raises:
        DataError: the list cannot be read, has no column of URLs, or is empty.
    """
    path = local_path(uri)
    if path is None or path.suffix.lower() not in SUFFIXES or not path.is_file() or path.name in METADATA_NAMES:
        return None
    rows = _rows_of(path)
    if rows is None:
        return None
    first_row = next(rows(), None)
    if first_row is None:
        raise DataError(f"data.sources: the list {uri!r} is empty, expected URLs. Add URLs, or correct the path.")
    column = _url_column(path, first_row)
    if path.suffix.lower() == ".txt" and "://" not in str(first_row[column]):
        raise DataError(f"data.sources: expected a URL per line in {uri!r}, found {str(first_row[column])[:80]!r}.")
    from sdlora.data.sources.download import Downloader

    downloader = Downloader(context.config)
    count, shared_names = survey_urls(lambda: (_url(row, column) for row in rows()))
    return Source(
        name=path.resolve().name,
        key=address_key(str(path.resolve())),
        count=count,
        items=lambda: _items(rows(), column, shared_names, downloader, read_once=not context.config.recheck_urls),
        workers=context.config.url_workers,
        per_lane=context.config.url_per_host,
        close=downloader.close,
    )


def _items(
    rows: Iterator[Row], column: str, shared_names: SharedNames, downloader: Downloader, read_once: bool
) -> Iterator[Item]:
    seen_names: set[int] = set()
    for row in rows:
        url = _url(row, column)
        name, urls = file_behind(url, shared_names)
        if not url or hash(name) in seen_names:
            continue
        seen_names.add(hash(name))
        sidecar = sidecar_of_row(row, "metadata")
        yield Item(
            path=printable(name),
            stamp=None,
            read=partial(_fetch, downloader, urls),
            sidecar=already_read(sidecar),
            caption_stamp=sidecar.stamp,
            lane=name.partition("//")[2].partition("/")[0].lower(),  # the host, if the line is a URL
            read_once=read_once,
        )


def _url(row: Row, column: str) -> str:
    url = str(row.get(column) or "").strip()
    return url.encode("utf-8", "backslashreplace").decode()  # JSON may hold half a surrogate pair


def _fetch(downloader: Downloader, urls: Sequence[str], recorded_stamp: str | None = None) -> Content | None:
    """Fetch the file of these URLs by the newest URL that is still valid."""
    *older, newest = urls
    try:
        return downloader.fetch(newest, recorded_stamp)
    except UnreadableItemError:
        if not older:
            raise
        return _fetch(downloader, older, recorded_stamp)


def _rows_of(path: Path) -> Callable[[], Iterator[Row]] | None:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return partial(_parquet_rows, path) if _has_urls(path) else None
    readers = {".txt": _text_rows, ".csv": _csv_rows, ".tsv": _csv_rows, ".jsonl": _json_rows}
    return partial(readers[suffix], path)


def _url_column(path: Path, row: Row) -> str:
    column = next((key for key in URL_KEYS if key in row), None)
    if column is None:
        raise DataError(
            f"data.sources: {str(path)!r} has the columns {', '.join(map(str, row))}; expected one of "
            f"{', '.join(URL_KEYS)} with the addresses of images."
        )
    return column


def _text_rows(path: Path) -> Iterator[Row]:
    for line in _lines(path):
        if line.strip() and not line.lstrip().startswith("#"):
            yield {"url": line.strip()}


def _csv_rows(path: Path) -> Iterator[Row]:
    yield from csv.DictReader(_lines(path), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")


def _json_rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number} is not JSON: {error}. Correct the line.") from error
        if not isinstance(row, dict):
            raise DataError(f'{path}, line {number}: expected an object such as {{"url": …, "text": …}}.')
        yield row


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise DataError(f"data.sources: {str(path)!r} is not UTF-8 text: {error}. Save it as UTF-8.") from error
    except OSError as error:
        raise DataError(
            f"data.sources: {str(path)!r} cannot be read: {error.strerror}. Check its permissions."
        ) from error


def _has_urls(path: Path) -> bool:
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(path).names
    except (OSError, ValueError) as error:
        raise DataError(
            f"data.sources: {str(path)!r} is no Parquet file that can be read: {error}. Write it again."
        ) from error
    return any(key in names for key in URL_KEYS)


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    for batch in file.iter_batches(_ROWS_PER_BATCH):
        yield from batch.to_pylist()
