"""Captions next to images: sidecars, and `metadata.jsonl` or `metadata.csv` (the `imagefolder` convention)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from sdlora.data.sources.base import CAPTION_KEYS, SidecarInfo, caption_texts, one_line, text_or_none
from sdlora.data.sources.caption_limits import MAX_NAME_CHARS, limited_captions, limited_name
from sdlora.data.sources.rows import BrokenRow, csv_rows, json_object, json_rows
from sdlora.store.records import Caption, Origin

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
SIDECAR_SUFFIXES = (".txt", ".caption", ".json")
MAX_SIDECAR_BYTES = 256 * 2**10


def read_metadata(name: str, content: bytes) -> Iterator[tuple[str, SidecarInfo] | BrokenRow]:
    """Yield (`file_name`, its information) of the rows of a metadata file, and the lines that cannot be read.

    Args:
        name: `metadata.jsonl` or `metadata.csv`, or a path that ends so.
    """
    file = io.BytesIO(content)
    for row in json_rows(file) if name.endswith(".jsonl") else csv_rows(file):
        if isinstance(row, BrokenRow):
            yield row
            continue
        file_name = row.values.get("file_name")
        if not isinstance(file_name, str) or not file_name:
            keys = one_line(", ".join(map(str, row.values)))[:MAX_NAME_CHARS]
            yield BrokenRow(row.number, f"expected a `file_name`, found the keys {keys}")
        elif len(file_name) > MAX_NAME_CHARS:
            yield BrokenRow(row.number, f"a `file_name` of {len(file_name):,} characters")
        else:
            yield str(PurePosixPath(file_name)), sidecar_of_row(row.values, "metadata")


def sidecar_of_row(row: Mapping[str, object], origin: Origin) -> SidecarInfo:
    """Read captions, origin, licence and mask from a row of metadata or of a dataset."""
    caption_key = next((key for key in CAPTION_KEYS if row.get(key)), None)
    texts = caption_texts(row[caption_key]) if caption_key else ()
    captions, problems = limited_captions([Caption(text, origin) for text in texts])
    image_origin, origin_problems = limited_name(text_or_none(row.get("source")), "a source")
    licence, licence_problems = limited_name(text_or_none(row.get("licence") or row.get("license")), "a licence")
    mask = row.get("mask")
    return SidecarInfo(
        captions=captions,
        origin=image_origin,
        licence=licence,
        # A path that is too long is cut, so that the image is rejected for its missing mask.
        mask=mask[:MAX_NAME_CHARS] if mask and isinstance(mask, str) else None,
        problems=problems + origin_problems + licence_problems,
    )


def read_sidecar(suffix: str, content: bytes) -> SidecarInfo:
    """Read a sidecar: text with a caption per line, or JSON with the keys of a metadata row."""
    text = decode_text(content)
    if suffix == ".json":
        row = json_object(text)
        return SidecarInfo(problems=(row,)) if isinstance(row, str) else sidecar_of_row(row, "sidecar")
    captions, problems = limited_captions(
        [Caption(line, "sidecar") for line in map(one_line, text.splitlines()) if line]
    )
    return SidecarInfo(captions, problems=problems)


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
