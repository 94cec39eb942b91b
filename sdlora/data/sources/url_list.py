"""Lists of image URLs: `.txt` with a URL per line, or a column of `.csv`, `.tsv`, `.jsonl` or `.parquet`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sdlora.core.errors import DataError
from sdlora.data.sources.base import (
    CAPTION_KEYS,
    RIGHTS_KEYS,
    Content,
    Item,
    Source,
    SourceContext,
    address_key,
    already_read,
    local_path,
    printable,
    refused_item,
    shortened,
)
from sdlora.data.sources.metadata import METADATA_NAMES, sidecar_of_row
from sdlora.data.sources.rows import BrokenRow, Row, csv_rows, json_rows, text_lines
from sdlora.data.sources.signed_urls import SharedNames, file_behind, survey_urls

if TYPE_CHECKING:
    from sdlora.data.sources.download import Downloader

URL_KEYS = ("url", "image_url", "URL", "link", "src")
SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")
MAX_URL_CHARS = 8192
"""Longest address. Servers take at most about as many."""

_ROWS_PER_BATCH = 100

Reader = Callable[[BinaryIO], Iterator[Row | BrokenRow]]
Rows = Callable[[], Iterator[Row | BrokenRow]]


def open_url_list(uri: str, context: SourceContext) -> Source | None:
    """Open a list of URLs; None if the path is no such file.

    Captions, licence and origin come from columns named as in `metadata.jsonl`. Images that were fetched before are
    skipped, unless `recheck_urls` is set: then each host is asked for changes. Signatures and tokens in a URL are sent
    but never recorded, so an image is recognised under a new signature. A line that cannot be read costs itself.

    Raises:
        DataError: the list cannot be read, has no column of URLs, or is empty.
    """
    path = local_path(uri)
    if path is None or path.suffix.lower() not in SUFFIXES or not path.is_file() or path.name in METADATA_NAMES:
        return None
    rows = _rows_of(path)
    if rows is None:
        return None
    column = _url_column(path, rows)
    from sdlora.data.sources.download import Downloader

    downloader = Downloader(context.config, memory=context.memory)
    count, shared_names = survey_urls(lambda: _urls(rows(), column))
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
    rows: Iterator[Row | BrokenRow], column: str, shared_names: SharedNames, downloader: Downloader, read_once: bool
) -> Iterator[Item]:
    seen_names: set[int] = set()
    for row in rows:
        if isinstance(row, BrokenRow):
            yield refused_item(f"line {row.number:,}", row.reason)
            continue
        url = _url(row.values, column)
        if not url:
            yield refused_item(f"line {row.number:,}", f"no address in {column!r}")
            continue
        if len(url) > MAX_URL_CHARS:
            yield refused_item(
                f"line {row.number:,}", f"its address has {len(url):,} characters, more than {MAX_URL_CHARS:,}"
            )
            continue
        name, urls = file_behind(url, shared_names)
        if hash(name) in seen_names:
            continue
        seen_names.add(hash(name))
        sidecar = sidecar_of_row(row.values, "metadata")
        yield Item(
            path=printable(name),
            stamp=None,
            read=partial(_fetch, downloader, urls),
            sidecar=already_read(sidecar),
            caption_stamp=sidecar.stamp,
            lane=name.partition("//")[2].partition("/")[0].lower(),  # the host, if the line is a URL
            read_once=read_once,
        )


def _urls(rows: Iterator[Row | BrokenRow], column: str) -> Iterator[str]:
    urls = (_url(row.values, column) for row in rows if isinstance(row, Row))
    return (url for url in urls if len(url) <= MAX_URL_CHARS)


def _url(row: Mapping[str, object], column: str) -> str:
    url = str(row.get(column) or "").strip()
    return url.encode("utf-8", "backslashreplace").decode()  # JSON may hold half a surrogate pair


def _fetch(downloader: Downloader, urls: Sequence[str], recorded_stamp: str | None = None) -> Content | None:
    """Fetch the file of these URLs by the newest URL that is still valid."""
    *older, newest = urls
    return downloader.fetch(newest, recorded_stamp, older)


def _rows_of(path: Path) -> Rows | None:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return partial(_parquet_rows, path) if _has_urls(path) else None
    readers: dict[str, Reader] = {
        ".txt": text_lines,
        ".csv": csv_rows,
        ".tsv": partial(csv_rows, delimiter="\t"),
        ".jsonl": json_rows,
    }
    return partial(_file_rows, path, readers[suffix])


def _file_rows(path: Path, reader: Reader) -> Iterator[Row | BrokenRow]:
    try:
        with path.open("rb") as file:
            for row in reader(file):
                if path.suffix.lower() != ".txt" or isinstance(row, BrokenRow):
                    yield row
                elif not str(row.values["line"]).startswith("#"):
                    yield Row(row.number, {"url": row.values["line"]})
    except OSError as error:
        raise DataError(
            f"data.sources: {str(path)!r} cannot be read: {error.strerror}. Check its permissions."
        ) from error


def _url_column(path: Path, rows: Rows) -> str:
    """Return the column of the addresses, by the first row that has one.

    Raises:
        DataError: no row can be read, or none has addresses.
    """
    first: Row | BrokenRow | None = None
    column = None
    for row in rows():
        first = row if first is None or (isinstance(first, BrokenRow) and isinstance(row, Row)) else first
        if isinstance(row, Row) and (column := next((key for key in URL_KEYS if key in row.values), None)):
            first = row
            break
    if first is None:
        raise DataError(f"data.sources: the list {str(path)!r} is empty, expected URLs. Add URLs, or correct the path.")
    if isinstance(first, BrokenRow):
        raise DataError(
            f"data.sources: expected URLs in {str(path)!r}, but no line can be read: line {first.number:,}: "
            f"{first.reason}. Correct the list."
        )
    if column is None:
        raise DataError(
            f"data.sources: {str(path)!r} has the columns {shortened(', '.join(map(str, first.values)))}; expected one "
            f"of {', '.join(URL_KEYS)} with the addresses of images."
        )
    address = str(first.values[column])
    if path.suffix.lower() == ".txt" and "://" not in address:
        raise DataError(f"data.sources: expected a URL per line in {str(path)!r}, found {address[:80]!r}.")
    return column


def _has_urls(path: Path) -> bool:
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(path).names
    except (OSError, ValueError) as error:
        raise DataError(
            f"data.sources: {str(path)!r} is no Parquet file that can be read: {error}. Write it again."
        ) from error
    return any(key in names for key in URL_KEYS)


def _parquet_rows(path: Path) -> Iterator[Row | BrokenRow]:
    import pyarrow.parquet

    number = 0
    try:
        file = pyarrow.parquet.ParquetFile(path)
        known = {*URL_KEYS, *CAPTION_KEYS, *RIGHTS_KEYS, "mask"}
        columns = [name for name in file.schema_arrow.names if name in known]
        for batch in file.iter_batches(_ROWS_PER_BATCH, columns=columns):
            for values in batch.to_pylist():
                number += 1
                yield Row(number, values)
    except Exception as error:  # noqa: BLE001  # damaged pages can raise any error of Arrow
        yield BrokenRow(number + 1, f"not read, as all rows after it: {error}")
