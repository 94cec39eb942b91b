"""Captions that lie beside the images: `metadata.jsonl` and `metadata.csv` (the `imagefolder` convention), `.txt`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sdlora.data.sources.base import CAPTION_KEYS, caption_texts, tidy
from sdlora.errors import DataError
from sdlora.store import Caption

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")


@dataclass(frozen=True)
class FileMetadata:
    """What a metadata file says of one image."""

    captions: tuple[Caption, ...]
    source: str | None
    licence: str | None


def read_metadata(path: Path) -> dict[str, FileMetadata]:
    """Rows of a metadata file by `file_name`, which is relative to the file's folder.

    Raises:
        DataError: the file is not UTF-8, a line is not JSON, or a row lacks `file_name`.
    """
    rows = _json_rows(path) if path.suffix == ".jsonl" else _csv_rows(path)
    found: dict[str, FileMetadata] = {}
    for number, row in rows:
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise DataError(
                f"{path}, line {number}: expected a `file_name`, found the keys {', '.join(map(str, row))}."
            )
        key = next((key for key in CAPTION_KEYS if row.get(key)), None)
        texts = caption_texts(row[key]) if key else ()
        found[str(PurePosixPath(name))] = FileMetadata(
            captions=tuple(Caption(text, "metadata") for text in texts),
            source=_text(row.get("source")),
            licence=_text(row.get("licence") or row.get("license")),
        )
    return found


def read_sidecar(path: Path) -> tuple[Caption, ...]:
    """Captions of a `.txt` file: one per line."""
    # Not every old caption file is UTF-8; a replaced letter is better than a lost image.
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    return tuple(Caption(line, "sidecar") for line in map(tidy, text.splitlines()) if line)


def caption_from_name(stem: str) -> tuple[Caption, ...]:
    """`red-apple_2` -> "red apple 2"."""
    text = tidy(stem.replace("-", " ").replace("_", " "))
    return (Caption(text, "file_name"),) if text else ()


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{path}, line {number} is not JSON: {error}. Correct the line; nothing was collected."
            ) from error
        if not isinstance(row, dict):
            raise DataError(f'{path}, line {number}: expected an object such as {{"file_name": …, "text": …}}.')
        yield number, row


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    reader = csv.DictReader(_read_text(path).splitlines())
    for row in reader:
        yield reader.line_num, {key: value for key, value in row.items() if key is not None}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}. Save it as UTF-8; nothing was collected.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Nothing was collected.") from error


def _text(value: object) -> str | None:
    return tidy(value) or None if isinstance(value, str) else None
