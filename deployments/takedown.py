"""Take an image out of all that was made of it in the state folder, and name what lies elsewhere.

Its bytes are the image database's to remove. Here go its tensors in caches, and its pictures in pages, duels and
comparisons, with the copies of these that MLflow keeps in the same folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdlora.core.errors import EvaluationError
from sdlora.core.files import file_sha256, replace_file
from sdlora.records.comparison import COMPARISON_FILE, COMPARISON_GRID, load_comparison
from sdlora.records.duel import DUEL_FILE
from sdlora.store.details import ImageDetails

_PAGE_FOLDERS = ("pages", "runs", "comparisons", "mlflow/artifacts", "cache/adapters")
"""Where pages and pictures lie, below the state folder."""


@dataclass(frozen=True)
class ClearedCopies:
    """How many cache files were changed, and the pages and pictures that no longer show the image."""

    cache_files: int
    pages: tuple[Path, ...]
    pictures: tuple[Path, ...]


def clear_copies(home: Path, details: ImageDetails) -> ClearedCopies:
    """Remove an image from what was made of it below `home`. To do it again finishes what was killed in between.

    Raises:
        StorageError: something cannot be changed; it is named.
    """
    from sdlora.evaluation.blanking import blank_exhibits, blank_picture
    from sdlora.release.blanking import blank_in_page
    from sdlora.training.forget import forget_in_caches

    sha256 = details.record.sha256
    pages: set[Path] = set()
    pictures: set[Path] = set()
    for folder in _comparisons_with(home, details):
        blank_picture(folder / COMPARISON_GRID)
        pictures.add(folder / COMPARISON_GRID)
        pages.update(page for page in folder.glob("*.html") if blank_in_page(page, None))
    redrawn: dict[str, Path] = {}
    for duel in _files(home, DUEL_FILE):
        if duel.with_name("samples").is_dir():  # a release has the duel's words without its pictures
            redrawn |= blank_exhibits(duel.parent, sha256)
    pictures.update(redrawn.values())
    for copy in _files(home, "*.png"):
        original = redrawn.get(file_sha256(copy)) if redrawn else None
        if original:
            replace_file(copy, original.read_bytes())
            pictures.add(copy)
    pages.update(page for page in _files(home, "*.html") if blank_in_page(page, sha256))
    return ClearedCopies(forget_in_caches(home / "cache", sha256), tuple(sorted(pages)), tuple(sorted(pictures)))


def copies_elsewhere(home: Path, details: ImageDetails) -> list[str]:
    """Versions in an MLflow outside `home` whose pages may show the image, each with the ids to remove it by.

    Pages show what was left out as well as what was learnt from; one that is older than the image shows neither.
    """
    if "MLFLOW_TRACKING_URI" not in os.environ:
        return []
    from tasks.tracking import Registry

    return Registry(home).pages_since(details.record.collected_at)


def _comparisons_with(home: Path, details: ImageDetails) -> Iterator[Path]:
    """Folders of comparisons on snapshots that hold the image back: which of those a grid shows is not recorded."""
    held_back = {appearance.snapshot.digest for appearance in details.appearances if appearance.split == "held_out"}
    for file in _files(home, COMPARISON_FILE):
        try:
            snapshot = load_comparison(file.parent).snapshot_digest
        except EvaluationError:  # of another version
            continue
        if snapshot in held_back and file.with_name(COMPARISON_GRID).is_file():
            yield file.parent


def _files(home: Path, pattern: str) -> Iterator[Path]:
    for root in _PAGE_FOLDERS:
        yield from sorted((home / root).rglob(pattern))
