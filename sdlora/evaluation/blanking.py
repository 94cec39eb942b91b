"""Take an image out of the pictures of a duel: the sample files that show it, and the grids drawn from them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from sdlora.core.files import replace_file
from sdlora.evaluation.exhibits import draw_grids, png_bytes
from sdlora.records.duel import CONTESTANTS, Duel, load_duel

GREY = (236, 238, 242)


def blank_exhibits(folder: Path, sha256: str) -> dict[str, Path]:
    """Paint over an image wherever the duel of `folder` shows it. Scores and `duel.json` stay: they hold no pixels.

    Returns:
        The changed files by the SHA-256 that they had when the duel was fought; copies elsewhere are known by it.

    Raises:
        EvaluationError: there is no finished duel.
        StorageError: a file cannot be written.
    """
    duel = load_duel(folder)
    names = [name for row in range(len(duel.shown)) for name in _files_showing(duel, row, sha256)]
    if not names:
        return {}
    for name in names:
        blank_picture(folder / name)
    fields: dict[str, str] = {"real": "real", "nearest": "nearest_training", **{name: name for name in CONTESTANTS}}
    columns = {
        column: [_open_rgb(folder / getattr(images, field)) for images in duel.shown]
        for column, field in fields.items()
        if all(getattr(images, field) for images in duel.shown)
    }
    captions = [images.prompt for images in duel.shown]
    similarity = [sample.nearest_similarity for sample in duel.samples[: len(duel.shown)]]
    for name, grid in draw_grids(captions, similarity, columns).items():
        replace_file(folder / name, png_bytes(grid))
        names.append(name)
    return {duel.files[name]: folder / name for name in names if name in duel.files}


def blank_picture(path: Path) -> None:
    """Put a grey picture of the same size in its place.

    Raises:
        StorageError: the file cannot be written.
    """
    with Image.open(path) as picture:
        blank = Image.new("RGB", picture.size, GREY)
    replace_file(path, png_bytes(blank))


def _files_showing(duel: Duel, row: int, sha256: str) -> list[str]:
    sample, images = duel.samples[row], duel.shown[row]
    pairs = ((sample.held_out_sha256, images.real), (sample.nearest_training_sha256, images.nearest_training))
    return [name for image_sha256, name in pairs if image_sha256 == sha256]


def _open_rgb(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")
