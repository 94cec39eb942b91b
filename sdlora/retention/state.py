"""Things in a state folder that retention decides on, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True)
class StoredRun:
    """Folder of a training that has ended.

    Attributes:
        parts: names of the folders in it.
        second_copies: weights of its release that its adapter has, too, in bytes of its own.
        trained_at: time at which its adapter was written; None without one.
    """

    folder: Path
    parts: frozenset[str]
    second_copies: tuple[Path, ...] = ()
    trained_at: datetime | None = None


@dataclass(frozen=True)
class StoredVersion:
    """Published version of a style with its files.

    Attributes:
        protection: reason why its files stay; None if the gate refused it and nothing else speaks for it.
        runs: runs that gave its adapter.
        weights_bytes: bytes of its weights in the registry, which a removal frees.
        removed_at: time at which retention removed the files; they are complete if it is None.
    """

    style: str
    number: int
    protection: str | None
    runs: tuple[StoredRun, ...]
    weights_bytes: int = 0
    removed_at: datetime | None = None

    @property
    def label(self) -> str:
        return f"{self.style} version {self.number}"


@dataclass(frozen=True)
class StoredFile:
    """File of a cache or a page; `group` is the dataset of a page."""

    path: Path
    size: int
    changed_at: float
    group: str = ""


@dataclass(frozen=True)
class DrawnImage:
    """Drawn image that nobody rated and that is in no dataset."""

    sha256: str
    size: int


@dataclass(frozen=True)
class StoredModel:
    """Model in the registry that no version refers to."""

    model_id: str
    size: int


@dataclass(frozen=True)
class State:
    """Everything that rules decide on; lists are sorted from the oldest to the newest."""

    versions: Sequence[StoredVersion] = ()
    pages: Sequence[StoredFile] = ()
    cache: Sequence[StoredFile] = ()
    drawn: Sequence[DrawnImage] = ()
    models: Sequence[StoredModel] = ()
