"""Free space on the disk, compared with what a round of the loop needs, measured from the last rounds."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sdlora.core.errors import StorageError
from sdlora.retention.scan import freed_bytes
from sdlora.training.run_folder import DISK_FILE

ROUNDS_MEASURED = 3
MARGIN_BYTES = 100 * 10**6
"""Growth of databases, logs and caches in a round, generously."""
WARN_ROUNDS = 10
"""A warning starts when the disk has space for fewer rounds than this."""


@dataclass(frozen=True)
class DiskSpace:
    """Space on the disk of a state folder.

    Attributes:
        needed: bytes that the next round needs for a while; None if no round was measured.
        kept: bytes that a round leaves.
    """

    free: int
    needed: int | None
    kept: int = 0

    @property
    def rounds(self) -> int | None:
        """Number of rounds that fit; None without a measurement."""
        if self.needed is None:
            return None
        return 0 if self.free < self.needed else 1 + (self.free - self.needed) // max(1, self.kept)

    def in_words(self) -> str:
        """Describe free and needed space in a line."""
        free = f"{_size(self.free)} free"
        if self.needed is None:
            return free
        return f"{free}, a round needs up to {_size(self.needed)} (measured) and leaves about {_size(self.kept)}"


def disk_space(home: Path, style: str = "*") -> DiskSpace:
    """Compare the free space with the largest of the last rounds.

    Args:
        home: the state folder, which need not exist.
        style: name of a style; by default all styles count.
    """
    existing = next(path for path in (home.resolve(), *home.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    measured = sorted(
        (path for path in (home / "runs").glob(f"{style}/*/{DISK_FILE}") if (path.parent / "release").is_dir()),
        key=lambda path: path.stat().st_mtime,
    )
    peaks, kept = [], []
    for path in measured[-ROUNDS_MEASURED:]:
        with suppress(OSError, ValueError, KeyError, TypeError):
            peak = int(json.loads(path.read_text())["peak_bytes"])
            release = sum(file.stat().st_size for file in (path.parent / "release").rglob("*") if file.is_file())
            # MLflow's client copies the release to a temporary folder, and then to its own.
            peaks.append(peak + 2 * release)
            kept.append(freed_bytes([path.parent]) + release)
    if not peaks:
        return DiskSpace(free, None)
    return DiskSpace(free, max(peaks) + MARGIN_BYTES, max(kept))


def require_space(home: Path, style: str, run: Path) -> None:
    """Refuse a round that would fill the disk. A style without a measured round is not refused.

    Args:
        run: folder of the run; what an interrupted run has written there already counts as available.

    Raises:
        StorageError: the disk has less free space than a round of the style needs.
    """
    space = disk_space(home, style)
    if space.needed is not None and space.free + freed_bytes([run]) < space.needed:
        raise StorageError(
            f"The disk of {home} has {space.in_words()}. Nothing was trained. Free some space: `sdlora gc --dry-run` "
            "lists what the state folder no longer needs, and `sdlora gc` deletes it."
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.0f} MB"
