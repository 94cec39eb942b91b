"""Copies of files with a recorded digest: each is read, and a damaged one is restored from a whole one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdlora.core.errors import StorageError
from sdlora.core.files import file_sha256, written_aside
from sdlora.core.progress import OnProgress
from sdlora.integrity.damage import Damage, Problem

_MEGABYTE = 10**6


@dataclass(frozen=True)
class Copy:
    """Stored copy of a file.

    Attributes:
        kind: see `Damage`.
        what: the file in words.
        path: the file.
        identity: copies of equal identity have equal content, and replace each other.
        is_whole: returns True if the file at a path has the recorded content; raises OSError or ValueError otherwise,
            or returns False.
        remedy: what to do if no copy is whole, as a sentence.
        is_cache: True for a cache entry, which a repair deletes if no copy is whole.
        on_restored: called after the file was restored.
        address: place of the file for people, if `path` is a temporary download.
    """

    kind: str
    what: str
    path: Path
    identity: str
    is_whole: Callable[[Path], bool]
    remedy: str
    is_cache: bool = False
    on_restored: Callable[[], None] | None = None
    address: str = ""

    @property
    def where(self) -> str:
        """Place of the file for people."""
        return self.address or str(self.path)

    def problem(self) -> Problem | None:
        """Read the file; return None if it is whole."""
        try:
            return None if self.is_whole(self.path) else "damaged"
        except FileNotFoundError:
            return "missing"
        except (OSError, ValueError):
            return "damaged"


def digest_check(sha256: str) -> Callable[[Path], bool]:
    """Return a check that compares a file with its SHA-256."""
    return lambda path: file_sha256(path) == sha256


def verify_copies(copies: Iterable[Copy], on_progress: OnProgress, *, repair: bool) -> list[Damage]:
    """Read all copies, and restore damaged ones from whole ones of the same identity.

    Args:
        on_progress: called with "read files (MB)".
        repair: restore files and delete damaged cache entries; otherwise nothing is changed.
    """
    copies = list(copies)
    sizes = [_size(copy.path) for copy in copies]
    whole: dict[str, Copy] = {}
    damaged: list[tuple[Copy, Problem]] = []
    done = 0
    for copy, size in zip(copies, sizes, strict=True):
        problem = copy.problem()
        if problem is None:
            whole.setdefault(copy.identity, copy)
        else:
            damaged.append((copy, problem))
        done += size
        on_progress("read files (MB)", -(-done // _MEGABYTE), -(-sum(sizes) // _MEGABYTE))
    return [_damage(copy, problem, whole, repair) for copy, problem in damaged]


def _damage(copy: Copy, problem: Problem, whole: Mapping[str, Copy], repair: bool) -> Damage:
    donor, repaired = whole.get(copy.identity), False
    if donor is not None:
        remedy = f"A whole copy is {donor.where}; `sdlora doctor --deep --repair` restores it."
        if repair:
            _restore(donor, copy)
            repaired, remedy = True, f"Restored from {donor.where}."
    elif copy.is_cache:
        remedy = "It is made again when it is needed."
        if repair:
            copy.path.unlink(missing_ok=True)
            repaired, remedy = True, f"Deleted. {remedy}"
    else:
        remedy = copy.remedy
    return Damage(copy.kind, copy.what, copy.where, problem, remedy, repaired)


def _restore(donor: Copy, copy: Copy) -> None:
    """Copy a file from a whole copy, and check the result before it gets its name.

    Raises:
        StorageError: the disk is full or not writable, or the copied bytes differ.
    """
    try:
        with written_aside(copy.path) as partial:
            shutil.copyfile(donor.path, partial)
            if not copy.is_whole(partial):
                raise StorageError(f"{copy.path} cannot be restored: the copied bytes differ. Check the disk.")
    except OSError as error:
        raise StorageError(f"Cannot restore {copy.path}: {error}. Free some space and repeat.") from error
    if copy.on_restored:
        copy.on_restored()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
