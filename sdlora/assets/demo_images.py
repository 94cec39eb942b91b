"""Folders of the demo's images: a first batch, a batch that arrives later, and files that cleaning must refuse.

The tree depends on the drawings only: a drawing's batch follows from its file name, each bad file from the first batch.
`python -m sdlora.assets.emoji demo OUT_DIR` writes the tree, which ships as `sdlora.assets.DEMO_FOLDER`.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

FIRST_BATCH_FRACTION = 0.8

# A row of metadata.jsonl: file_name, text, licence, source and, for a bad file, its fault.
Row = dict[str, str]


@dataclass(frozen=True)
class BadFile:
    """File that looks like an image of the batch but must be refused by cleaning."""

    name: str
    content: bytes
    fault: str
    made_from: str | None = None


def write_demo_folder(folder: Path, rows: Sequence[Row], contents: Mapping[str, bytes], licence: str) -> None:
    """Write `first/`, `later/` and `bad/`, each with its `metadata.jsonl`, a README and the licence.

    Args:
        folder: target folder; stale files of an earlier run are removed.
        rows: one row per drawing; `file_name` has no folder.
        contents: PNG bytes of each drawing by file name.
        licence: text of the drawings' licence.
    """
    batches: dict[str, list[Row]] = {"first": [], "later": []}
    for row in rows:
        batches[batch_of(row["file_name"])].append(row)
    for batch, members in batches.items():
        _write_batch(folder / batch, members, {row["file_name"]: contents[row["file_name"]] for row in members})

    first_rows = {row["file_name"]: row for row in batches["first"]}
    bad = bad_files({name: contents[name] for name in first_rows})
    bad_rows = [_bad_row(file, first_rows) for file in bad]
    _write_batch(folder / "bad", bad_rows, {file.name: file.content for file in bad})

    (folder / "LICENSE").write_text(licence, encoding="utf-8")
    (folder / "README.md").write_text(_readme(batches, bad), encoding="utf-8")


def batch_of(file_name: str) -> str:
    """Return the batch of a drawing, "first" or "later", by a hash of its name.

    Other drawings stay in their batch when a drawing is added or removed.
    """
    position = int.from_bytes(hashlib.sha256(file_name.encode()).digest()[:8]) / 2**64  # in [0, 1)
    return "first" if position < FIRST_BATCH_FRACTION else "later"


def bad_files(good: Mapping[str, bytes]) -> list[BadFile]:
    """Make one file for each common fault of collected files.

    Args:
        good: PNG bytes by file name, at least six; the alphabetically first six are the originals.
    """
    names = sorted(good)
    truncated, copied, shrunk, *animated = names[:6]
    image = Image.open(io.BytesIO(good[shrunk])).convert("RGB")
    # A near copy, one pixel smaller and slightly darker, has other bytes and pixels but shows the same image.
    smaller = image.resize((image.width - 1, image.height - 1), Image.Resampling.BICUBIC)
    near_copy = smaller.point(lambda value: value * 252 // 255)
    frames = [Image.open(io.BytesIO(good[name])).convert("L") for name in animated]
    first_half = good[truncated][: len(good[truncated]) // 2]
    return [
        BadFile("truncated.png", first_half, "the second half is missing", truncated),
        BadFile("text.png", b"This is a text file that somebody named .png.\n", "a text file named .png"),
        BadFile("exact-copy.png", good[copied], "byte for byte an image of the first batch", copied),
        BadFile(
            "near-copy.png", _encode([near_copy], "PNG"), "an image of the first batch, rescaled and re-encoded", shrunk
        ),
        BadFile("blank.png", _encode([Image.new("RGB", (64, 64), "white")], "PNG"), "nothing but white"),
        BadFile("tiny.png", _encode([image.resize((5, 5), Image.Resampling.BOX)], "PNG"), "5 pixels wide", shrunk),
        BadFile("animated.gif", _encode(frames, "GIF"), "an animation of three frames", ", ".join(animated)),
    ]


def _bad_row(file: BadFile, first_rows: Mapping[str, Row]) -> Row:
    row = first_rows.get(file.made_from or "", {})
    return {
        "file_name": file.name,
        "text": row.get("text", "an emoji of something"),
        "licence": next(iter(first_rows.values()))["licence"] if file.made_from else "CC0-1.0",
        "source": file.made_from or "made by sdlora.assets.demo_images",
        "fault": file.fault,
    }


def _encode(frames: Sequence[Image.Image], image_format: str) -> bytes:
    out = io.BytesIO()
    animation = {"save_all": True, "append_images": frames[1:], "duration": 200, "loop": 0} if len(frames) > 1 else {}
    frames[0].save(out, image_format, **animation)
    return out.getvalue()


def _write_batch(folder: Path, rows: Sequence[Row], contents: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.iterdir():
        if stale.name not in contents:
            stale.unlink()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _readme(batches: Mapping[str, Sequence[Row]], bad: Sequence[BadFile]) -> str:
    faults = "\n".join(f"| `{file.name}` | {file.fault} | {file.made_from or ''} |" for file in bad)
    return f"""# Demo images

Fluent emoji in their high-contrast drawing, black on white, 64 x 64 pixels, with a caption each in
`metadata.jsonl`. The embedded base model was not trained on this style.

| folder | images | role |
|---|---|---|
| `first` | {len(batches["first"])} | images that `sdlora demo` collects and trains on; a quarter is held out by hash |
| `later` | {len(batches["later"])} | a later batch: collect it and run again |
| `bad` | {len(bad)} | files that cleaning must refuse, each with its `fault` in `metadata.jsonl` |

| bad file | fault | made from |
|---|---|---|
{faults}

The drawings are Microsoft's, from the npm package `fluentui-emoji` 1.3.0, under the MIT licence in `LICENSE`.
`python -m sdlora.assets.emoji demo OUT_DIR` draws the images again.
"""
