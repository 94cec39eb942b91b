"""Exhibits of a duel, for people: small PNGs per row, and the grids drawn from them."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from sdlora.core.files import file_sha256, make_folder, replace_file
from sdlora.evaluation.grids import draw_grid
from sdlora.records.duel import CONTESTANTS, DUEL_FILE, ContestantName, Duel, ShownImages


@dataclass(frozen=True)
class Exhibits:
    """First K prompts of a duel with their images, (K, 3, H, W) uint8."""

    captions: Sequence[str]
    real: Tensor
    drawn: Mapping[ContestantName, Tensor]
    nearest_training: Tensor
    similarity: Sequence[float]


def write_exhibits(folder: Path, exhibits: Exhibits) -> tuple[tuple[ShownImages, ...], dict[str, str]]:
    """Write samples and grids; return the file names of every row, and the SHA-256 of every file.

    An earlier `duel.json` is removed first: a folder with `duel.json` is complete, and its images are replaced now.
    """
    (folder / DUEL_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder / "samples", ignore_errors=True)
    make_folder(folder / "samples")
    columns: dict[str, Tensor] = {"real": exhibits.real, "nearest": exhibits.nearest_training}
    columns.update({name: exhibits.drawn[name] for name in CONTESTANTS if name in exhibits.drawn})
    images = {name: [to_image(image) for image in batch] for name, batch in columns.items()}
    paths = {name: [f"samples/{row:02d}-{name}.png" for row in range(len(batch))] for name, batch in images.items()}
    for column, column_paths in paths.items():
        for path, image in zip(column_paths, images[column], strict=True):
            replace_file(folder / path, png_bytes(image))
    for name, grid in draw_grids(exhibits.captions, exhibits.similarity, images).items():
        replace_file(folder / name, png_bytes(grid))
    shown_images = tuple(
        ShownImages(
            prompt=caption,
            real=paths["real"][row],
            base=paths["base"][row],
            champion=paths["champion"][row] if "champion" in paths else None,
            candidate=paths["candidate"][row],
            nearest_training=paths["nearest"][row],
        )
        for row, caption in enumerate(exhibits.captions)
    )
    files = sorted([*(path for column_paths in paths.values() for path in column_paths), *GRIDS])
    return shown_images, {name: file_sha256(folder / name) for name in files}


GRIDS = tuple(Duel.model_fields[field].default for field in ("grid", "before_after_grid", "nearest_grid"))


def draw_grids(
    captions: Sequence[str], similarity: Sequence[float], images: Mapping[str, Sequence[Image.Image]]
) -> dict[str, Image.Image]:
    """Draw the grids by file name, from the columns "real", "nearest" and the contestants' names."""

    def grid(columns: Mapping[str, str], captions: Sequence[str] = captions) -> Image.Image:
        rows = zip(*(images[column] for column in columns), strict=True)
        return draw_grid(list(columns.values()), list(zip(captions, rows, strict=True)), rows_per_line=2)

    all_columns: dict[str, str] = {name: name for name in ("real", *CONTESTANTS) if name in images}
    nearest_captions = [
        f"{caption} (similarity {cosine:.2f})" for caption, cosine in zip(captions, similarity, strict=True)
    ]
    grids = (
        grid(all_columns),
        grid({"base": "before", "candidate": "after"}),
        grid({"candidate": "candidate", "nearest": "nearest training"}, nearest_captions),
    )
    return dict(zip(GRIDS, grids, strict=True))


def to_image(image_uint8: Tensor) -> Image.Image:
    """Convert (3, H, W) uint8 to an RGB image."""
    return Image.fromarray(image_uint8.permute(1, 2, 0).numpy())


def png_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
