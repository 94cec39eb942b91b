"""Removal of an image from the pictures of a duel: from sample files, and from the grids drawn of them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from sdlora.core.files import replace_file
from sdlora.evaluation.exhibits import draw_grids, png_bytes
from sdlora.records.duel import CONTESTANTS, Duel, load_duel

GREY = (236, 238, 242)


def blank_exhibits(folder: Path, sha256: str) -> dict[str, Path]:
    """Paint over an image in all pictures of the duel in `folder`. Scores and `duel.json` stay: they hold no pixels.

    Returns:
        The changed files by their SHA-256 in `duel.json`, by which copies in other places can be found.

    Raises:
        EvaluationError: no finished duel.
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
    """Replace a picture by a grey one of the same size.

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
