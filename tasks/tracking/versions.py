"""Registered version of an adapter as a value, with its tags and notes, and the errors of its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from mlflow.entities.model_registry import ModelVersion

from sdlora.core.errors import WeightsError
from sdlora.records.decision import Answer
from tasks.results import Release, RunRef
from tasks.tracking.notes import merge_notes

CANDIDATE, CHAMPION = "candidate", "champion"
"""Aliases. "candidate" is the version that waits for a person's decision, else the newest version."""
WAITING = "waiting"
"""Value of the tag `decision` of a version whose publication left the decision to a person."""
ADAPTER_FOLDER = "adapter_weights"
"""Folder of the release's files in a logged model, named by `mlflow.diffusers`."""
EQUAL_RUNS = "equal_runs"
"""Note with the digests of further runs that gave the same adapter."""
FILES_REMOVED = "files_removed"
"""Note of a version whose weights retention removed: "files removed by retention on DATE"; empty if they are back."""


class NoWholeCopyError(WeightsError):
    """Adapter of which every copy is damaged or missing."""


class RemovedFilesError(NoWholeCopyError):
    """Adapter whose files retention removed."""


@dataclass(frozen=True)
class AdapterVersion:
    """Registered adapter with its tags and notes.

    Attributes:
        name: name of the registered model, which is the style.
        tags: tags for people and notes of programs, merged.
    """

    name: str
    number: int
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
    created: datetime
    source: str
    run_id: str | None

    @property
    def published(self) -> bool:
        """True if publishing finished; if not, the next run of the loop finishes it."""
        return "published" in self.tags

    @property
    def snapshot_digest(self) -> str | None:
        """Digest of the snapshot that the adapter was trained on; None for an adapter that was adopted from a file."""
        return self.tags.get("snapshot_digest")

    @property
    def train_count(self) -> int | None:
        """Number of images that the adapter was trained on; None if unknown."""
        return int(self.tags["train_count"]) if "train_count" in self.tags else None

    @property
    def run_digests(self) -> tuple[str, ...]:
        """Digests of the runs that gave this adapter: the published one first, then runs with other settings."""
        return (self.tags.get("run_digest", ""), *self.tags.get(EQUAL_RUNS, "").split())

    @property
    def files_removed(self) -> str:
        """Removal of the weights in words; empty if they are there."""
        return self.tags.get(FILES_REMOVED, "")

    @property
    def way_back(self) -> str:
        """Return how the adapter is made again if its weights were removed."""
        if self.snapshot_digest is None:
            return f"`sdlora adopt {self.name} FILE --force` converts the same file again."
        return "With its images and settings, `sdlora run --force` trains the same adapter again."

    def remedy(self, run: Path) -> str:
        """Return what to do if no copy of the adapter is whole.

        Args:
            run: folder of the run that gave it.
        """
        if self.snapshot_digest is None:
            return f"Delete {run} and adopt the file again: sdlora adopt {self.name} FILE."
        return f"Train it again: delete {run} and type `sdlora run`."

    def as_release(self, run: RunRef, *, new: bool) -> Release:
        """Convert the version to the result of a run that gave this adapter; the files are those of the publication."""
        published = self.tags.get("run_digest", run.digest)
        if published != run.digest:
            run = RunRef(digest=published, folder=run.folder.with_name(published[:16]))
        return Release(
            name=self.name,
            version=self.number,
            new=new,
            promoted=self.tags.get("decision") == "promoted",
            waits=self.tags.get("decision") == WAITING,
            answer=cast("Answer | None", self.tags.get("answer")),
            reasons=tuple(self.tags.get("reasons", "").splitlines()),
            run=run,
        )


def version_of(version: ModelVersion, aliases: Sequence[str]) -> AdapterVersion:
    """Convert MLflow's record of a version, which lacks its aliases."""
    return AdapterVersion(
        name=version.name,
        number=int(version.version),
        tags=merge_notes(version.tags),
        aliases=tuple(sorted(aliases)),
        created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        source=version.source or "",
        run_id=version.run_id,
    )
