"""Takedown of an image's copies in the state folder, and a list of the copies elsewhere.

The image database removes the image's bytes. This module removes its tensors from caches, and its pictures from pages,
duels and comparisons, including MLflow's copies in the same folder. Weights that learnt from the image go, too, unless
they are a published version.
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
from sdlora.store.image_store import ImageStore
from sdlora.store.lineage import ImageLineage

_PAGE_FOLDERS = ("pages", "runs", "comparisons", "mlflow/artifacts", "cache/adapters")
"""Folders of pages and pictures, below the state folder."""


@dataclass(frozen=True)
class ClearedCopies:
    """Number of changed cache files, and the pages and pictures that no longer show the image.

    Attributes:
        runs: run folders without a version, whose weights were removed, and those of versions, whose checkpoints and
            second-best adapters were removed.
        busy_runs: run folders whose training did not stop in time.
        bases: folders of finished base models that learnt from the image.
    """

    cache_files: int
    pages: tuple[Path, ...]
    pictures: tuple[Path, ...]
    runs: tuple[Path, ...] = ()
    busy_runs: tuple[Path, ...] = ()
    bases: tuple[Path, ...] = ()


def clear_copies(store: ImageStore, lineage: ImageLineage) -> ClearedCopies:
    """Remove an image's copies from caches, pages and pictures of the store's home, and unpublished weights.

    A training that learns from the image stops by itself, which is waited for. A repeated call finishes a killed one.

    Raises:
        StorageError: a file cannot be changed; the message names it.
    """
    from sdlora.evaluation.blanking import blank_exhibits, blank_picture
    from sdlora.pretraining.forget import forget_stages
    from sdlora.release.blanking import blank_in_page
    from sdlora.training.forget import forget_in_caches
    from sdlora.training.takedown import forget_runs

    home, sha256 = store.home, lineage.sha256
    snapshots = {appearance.snapshot.digest for appearance in lineage.appearances}
    runs, busy_runs = forget_runs(store, snapshots)
    trained = {appearance.snapshot.digest for appearance in lineage.appearances if appearance.split == "train"}
    bases = forget_stages(home, trained)
    pages: set[Path] = set()
    pictures: set[Path] = set()
    for folder in _comparisons_with(home, lineage):
        blank_picture(folder / COMPARISON_GRID)
        pictures.add(folder / COMPARISON_GRID)
        pages.update(page for page in folder.glob("*.html") if blank_in_page(page, None))
    redrawn: dict[str, Path] = {}
    for duel in _files(home, DUEL_FILE):
        if duel.with_name("samples").is_dir():  # a release has the duel's record without its pictures
            redrawn |= blank_exhibits(duel.parent, sha256)
    pictures.update(redrawn.values())
    for copy in _files(home, "*.png"):
        original = redrawn.get(file_sha256(copy)) if redrawn else None
        if original:
            replace_file(copy, original.read_bytes())
            pictures.add(copy)
    pages.update(page for page in _files(home, "*.html") if blank_in_page(page, sha256))
    cache_files = forget_in_caches(home / "cache", sha256)
    return ClearedCopies(
        cache_files, tuple(sorted(pages)), tuple(sorted(pictures)), tuple(runs), tuple(busy_runs), tuple(bases)
    )


def copies_elsewhere(home: Path, lineage: ImageLineage) -> list[str]:
    """List versions in an MLflow outside `home` whose pages may show the image, each with its run and model ids.

    Pages show rejected images as well as trained ones. Pages older than the image cannot show it.
    """
    if "MLFLOW_TRACKING_URI" not in os.environ:
        return []
    from tasks.tracking import Registry

    return Registry(home).pages_since(lineage.collected_at)


def _comparisons_with(home: Path, lineage: ImageLineage) -> Iterator[Path]:
    """Find comparisons on snapshots that hold the image out: the images that a grid shows are not recorded."""
    held_back = {appearance.snapshot.digest for appearance in lineage.appearances if appearance.split == "held_out"}
    for file in _files(home, COMPARISON_FILE):
        try:
            snapshot = load_comparison(file.parent).snapshot_digest
        except EvaluationError:  # in another version's format
            continue
        if snapshot in held_back and file.with_name(COMPARISON_GRID).is_file():
            yield file.parent


def _files(home: Path, pattern: str) -> Iterator[Path]:
    for root in _PAGE_FOLDERS:
        yield from sorted((home / root).rglob(pattern))
