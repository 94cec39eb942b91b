"""Reading of a state folder for the rules of retention, and the bytes that a deletion frees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.records.champions import GATE, ChampionHistory
from sdlora.retention.state import DrawnImage, StoredFile, StoredRun
from sdlora.store.blobs import BlobStore
from sdlora.store.tables.datasets import MaskTable
from sdlora.store.tables.images import ImageTable
from sdlora.store.tables.ratings import GenerationTable, RatingTable

CACHES_OF_DUELS = ("generations", "reconstructions", "features", "adapters")
"""Caches that grow with each round. Latents and embeddings grow with the images and are read by each training."""
_LOST = ("refused",)
"""Kinds of the last entry of a version that the gate alone refused."""


def protection(history: ChampionHistory, number: int) -> str | None:
    """Reason why the files of a version stay, from the decisions on it; None if the gate alone refused it."""
    if any(number in (entry.from_version, entry.to_version) for entry in history.entries):
        return "it is or was the champion"
    own = [entry for entry in history.entries if entry.version.number == number]
    if not own:
        return "nothing is decided about it"
    if any(entry.version.snapshot_digest is None for entry in own):
        return "a person brought it, and it cannot be trained again"
    if people := sorted({entry.who for entry in own if entry.who != GATE}):
        return f"{', '.join(people)} decided about it"
    is_superseded = own[-1].kind == "waiting" and own[-1] != history.waiting
    return None if own[-1].kind in _LOST or is_superseded else f"its last decision is: {own[-1].kind}"


def rated_versions(session: Session) -> set[str]:
    """Return the labels of the versions with a drawn image that a person rated, withdrawn ratings included."""
    rated = select(GenerationTable.model_version).join(RatingTable, RatingTable.sha256 == GenerationTable.sha256)
    return set(session.scalars(rated.distinct()))


def stored_run(folder: Path) -> StoredRun:
    """Read the folder of a run; a folder that is gone has no parts."""
    parts = frozenset(path.name for path in folder.glob("*") if path.is_dir() and not path.is_symlink())
    written = folder / "adapter"
    trained_at = datetime.fromtimestamp(written.stat().st_mtime, UTC) if "adapter" in parts else None
    return StoredRun(folder, parts, tuple(_second_copies(folder)), trained_at)


def _second_copies(run: Path) -> Iterator[Path]:
    for path in sorted((run / "release").glob("*.safetensors")):
        own = run / "adapter" / path.name
        if own.is_file() and not own.samefile(path) and own.stat().st_size == path.stat().st_size:
            yield path


def unfinished_runs(home: Path) -> list[StoredFile]:
    """List the folders of trainings that have not ended, the oldest first; their size is that of the checkpoints."""
    folders = [path.parent for path in (home / "runs").glob("*/*/checkpoints") if any(path.iterdir())]
    unfinished = [path for path in folders if not (path / "adapter").is_dir() and not (path / "model").is_dir()]
    return _by_age(StoredFile(path, freed_bytes([path]), path.stat().st_mtime, path.parent.name) for path in unfinished)


def data_pages(home: Path) -> list[StoredFile]:
    """List the data pages of snapshots, the oldest first."""
    return _by_age(_file(path, path.parent.name) for path in (home / "pages").glob("*/data-*.html"))


def duel_caches(home: Path) -> list[StoredFile]:
    """List the cache files that grow with each round, the longest unused first; a downloaded adapter is one entry."""
    found: list[StoredFile] = []
    for name in CACHES_OF_DUELS:
        for path in (home / "cache" / name).glob("*"):
            if path.is_dir():
                files = [_file(file) for file in path.rglob("*") if file.is_file()]
                newest = max((file.changed_at for file in files), default=0.0)
                found.append(StoredFile(path, sum(file.size for file in files), newest, name))
            else:
                found.append(_file(path, name))
    return _by_age(found)


def unrated_drawn_images(session: Session, blobs: BlobStore) -> list[DrawnImage]:
    """List the drawn images that nobody rated and that are in no dataset, the oldest first."""
    used = [select(table.sha256) for table in (ImageTable, RatingTable)]
    used.append(select(MaskTable.sha256).where(MaskTable.sha256.is_not(None)))  # type: ignore[arg-type]
    statement = select(GenerationTable.sha256).order_by(GenerationTable.id)
    for sha256s in used:
        statement = statement.where(GenerationTable.sha256.not_in(sha256s))
    # An image that was drawn again is as new as its last drawing.
    newest_first = dict.fromkeys(reversed(session.scalars(statement).all()))
    return [DrawnImage(sha256, _blob_size(blobs, sha256)) for sha256 in reversed(newest_first)]


def freed_bytes(paths: Iterable[Path]) -> int:
    """Compute the bytes that a deletion of files and folders frees: a file with a name elsewhere frees none."""
    names: Counter[tuple[int, int]] = Counter()
    files: dict[tuple[int, int], tuple[int, int]] = {}
    for path in paths:
        for file in path.rglob("*") if path.is_dir() else (path,):
            if file.is_file() and not file.is_symlink():
                status = file.stat()
                key = (status.st_dev, status.st_ino)
                names[key] += 1
                files[key] = (status.st_nlink, status.st_size)
    return sum(size for key, (links, size) in files.items() if names[key] >= links)


def _file(path: Path, group: str = "") -> StoredFile:
    status = path.stat()
    # Reading updates the time of access at most once a day, which tells files in use from forgotten ones.
    return StoredFile(path, status.st_size, max(status.st_mtime, status.st_atime), group)


def _by_age(files: Iterable[StoredFile]) -> list[StoredFile]:
    return sorted(files, key=lambda file: (file.changed_at, file.path))


def _blob_size(blobs: BlobStore, sha256: str) -> int:
    try:
        return Path(blobs.address(sha256)).stat().st_size
    except OSError:  # in an object store, or removed already
        return 0
