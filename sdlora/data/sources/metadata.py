"""Captions next to images: sidecars, and `metadata.jsonl` or `metadata.csv` (the `imagefolder` convention)."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from sdlora.core.errors import DataError
from sdlora.data.sources.base import CAPTION_KEYS, SidecarInfo, caption_texts, one_line, text_or_none
from sdlora.store.records import Caption, Origin

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
SIDECAR_SUFFIXES = (".txt", ".caption", ".json")
MAX_SIDECAR_BYTES = 256 * 2**10


def read_metadata(path: str, content: bytes) -> dict[str, SidecarInfo]:
    """Read the rows of a metadata file by `file_name`, which is relative to the file's folder.

    Args:
        path: name of the file in errors.
    Raises:
        DataError: the file is not UTF-8, a line is not JSON, or a row lacks `file_name`.
    """
    text = _decode_metadata(path, content)
    rows = _json_rows(path, text) if path.endswith(".jsonl") else _csv_rows(text)
    sidecars: dict[str, SidecarInfo] = {}
    for number, row in rows:
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise DataError(
                f"{path}, line {number}: expected a `file_name`, found the keys {', '.join(map(str, row))}."
            )
        sidecars[str(PurePosixPath(name))] = sidecar_of_row(row, "metadata")
    return sidecars


def sidecar_of_row(row: Mapping[str, object], origin: Origin) -> SidecarInfo:
    """Read captions, origin, licence and mask from a row of metadata or of a dataset."""
    caption_key = next((key for key in CAPTION_KEYS if row.get(key)), None)
    texts = caption_texts(row[caption_key]) if caption_key else ()
    mask = row.get("mask")
    return SidecarInfo(
        captions=tuple(Caption(text, origin) for text in texts),
        origin=text_or_none(row.get("source")),
        licence=text_or_none(row.get("licence") or row.get("license")),
        mask=mask if mask and isinstance(mask, str) else None,
    )


def read_sidecar(suffix: str, content: bytes) -> SidecarInfo:
    """Read a sidecar: text with a caption per line, or JSON with the keys of a metadata row.

    Damaged JSON counts as no sidecar.
    """
    text = decode_text(content)
    if suffix == ".json":
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            return SidecarInfo()
        return sidecar_of_row(row, "sidecar") if isinstance(row, dict) else SidecarInfo()
    return SidecarInfo(tuple(Caption(line, "sidecar") for line in map(one_line, text.splitlines()) if line))


def decode_text(content: bytes) -> str:
    """Decode text of unknown encoding. Undecodable bytes are replaced: better lose a letter than an image."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    # A few accented letters among plain ones are Western text. Other bytes give no clue to their encoding.
    high_bytes = [byte for byte in content if byte >= 0x80]
    if all(byte >= 0xC0 for byte in high_bytes) and len(high_bytes) < len(content) / 4:
        return content.decode("cp1252", errors="replace")
    return content.decode("utf-8-sig", errors="replace")


def _json_rows(path: str, text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}, line {number} is not JSON: {error}. Correct the line; nothing of it was collected."
            ) from error
        if not isinstance(row, dict):
            raise DataError(f'{path}, line {number}: expected an object such as {{"file_name": …, "text": …}}.')
        yield number, row


def _csv_rows(text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    reader = csv.DictReader(text.splitlines(keepends=True))
    for row in reader:
        yield reader.line_num, {key: value for key, value in row.items() if key is not None}


def _decode_metadata(path: str, content: bytes) -> str:
    try:
        return content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}. Save it as UTF-8; nothing was collected.") from error
