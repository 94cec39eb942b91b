"""Rules of retention: from the state of a folder to the list of what to delete, each with its reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

from sdlora.retention.config import RetentionConfig
from sdlora.retention.state import State, StoredFile, StoredRun, StoredVersion

Kind = Literal["checkpoints", "lost candidate", "runner-up", "second copy", "page", "drawn image", "cache", "model"]

FINISHED_LEFTOVERS = ("checkpoints", "kept")
"""Folders that a training needs to continue, and no longer after its end."""
FILES_OF_VERSION = (*FINISHED_LEFTOVERS, "runner-up", "release", "evaluation", "samples", "adapter")
"""Folders of a run that hold weights and pictures. Settings, curve, choice and later decisions are small and stay."""


@dataclass(frozen=True)
class Removal:
    """Thing to delete.

    Attributes:
        what: the thing in words.
        why: the rule that deletes it, in words.
        size: bytes that the deletion frees besides those of `paths`, or all bytes once they were measured.
        paths: files and folders to delete; of kind "second copy", files that become second names.
        version: version whose files are deleted.
        key: SHA-256 of a drawn image, or id of a model.
    """

    kind: Kind
    what: str
    why: str
    size: int = 0
    paths: tuple[Path, ...] = ()
    version: StoredVersion | None = None
    key: str = ""


def plan_removals(state: State, config: RetentionConfig) -> tuple[Removal, ...]:
    """List what to delete under the rules. Nothing is read or deleted here."""
    return (
        *_versions(state.versions, config),
        *_pages(state.pages, config.pages),
        *_drawn_images(state, config.drawn_images),
        *_cache(state.cache, config.cache_megabytes * 10**6),
        *(
            Removal(
                "model", f"model {model.model_id} in MLflow", "no version refers to it", model.size, key=model.model_id
            )
            for model in state.models
        ),
    )


def _versions(versions: Sequence[StoredVersion], config: RetentionConfig) -> Iterator[Removal]:
    by_style: dict[str, list[StoredVersion]] = defaultdict(list)
    for version in versions:
        by_style[version.style].append(version)
    for _, own in sorted(by_style.items()):
        newest_first = sorted(own, key=lambda version: -version.number)
        lost = [version for version in newest_first if version.protection is None]
        removed = {version.number for version in lost[config.lost_candidates :]}
        # One run may have given several versions, on different machines.
        needed = {
            run.folder
            for version in own
            if version.number not in removed
            for run in version.runs
            if version.removed_at is None or version.protection is not None
        }
        for position, version in enumerate(newest_first):
            if version.protection is None and (version.removed_at is not None or version.number in removed):
                yield from _files_of_version(version, config.lost_candidates, needed)
            else:
                yield from _leftovers(version, position, config.runner_ups)


def _files_of_version(version: StoredVersion, kept: int, needed: Collection[Path]) -> Iterator[Removal]:
    # A run with checkpoints and without an adapter trains the version again; one that is newer than the removal did.
    ended = [
        run
        for run in version.runs
        if run.folder not in needed
        and ("adapter" in run.parts or run.parts.isdisjoint(FINISHED_LEFTOVERS))
        and not (version.removed_at and run.trained_at and run.trained_at > version.removed_at)
    ]
    paths = tuple(path for run in ended for path in _parts(run, *FILES_OF_VERSION))
    if not paths and not version.weights_bytes:
        return  # removed earlier
    why = f"refused, and {kept} refused versions are newer (lost_candidates)"
    if version.removed_at is not None:
        why = "its removal was interrupted"
    yield Removal("lost candidate", version.label, why, version.weights_bytes, paths, version)


def _leftovers(version: StoredVersion, position: int, runner_ups: int) -> Iterator[Removal]:
    """List what a version whose files stay needs no longer; `position` counts newer versions."""
    for run in version.runs:
        if "adapter" not in run.parts:
            continue  # a retraining that has not ended
        if paths := _parts(run, *FINISHED_LEFTOVERS):
            why = "the training has ended, and its version is published"
            yield Removal("checkpoints", f"checkpoints of {version.label}", why, paths=paths)
        if position >= runner_ups and (paths := _parts(run, "runner-up")):
            why = f"{position} versions of the style are newer (runner_ups)"
            yield Removal("runner-up", f"runner-up of {version.label}", why, paths=paths)
        if run.second_copies:
            why = "the run's adapter has the same bytes; both names stay"
            what = f"weights in the release of {version.label}"
            yield Removal("second copy", what, why, paths=run.second_copies)


def _parts(run: StoredRun, *names: str) -> tuple[Path, ...]:
    return tuple(run.folder / name for name in names if name in run.parts)


def _pages(pages: Iterable[StoredFile], kept: int) -> Iterator[Removal]:
    by_dataset: dict[str, list[StoredFile]] = defaultdict(list)
    for page in pages:
        by_dataset[page.group].append(page)
    for dataset, own in sorted(by_dataset.items()):
        for page in own[: max(0, len(own) - kept)]:
            why = f"{kept} pages of the dataset are newer (pages)"
            yield Removal("page", f"{page.path.name} of {dataset}", why, paths=(page.path,))


def _drawn_images(state: State, kept: int) -> Iterator[Removal]:
    for image in state.drawn[: max(0, len(state.drawn) - kept)]:
        why = f"nobody rated it, and {kept} such images are newer (drawn_images)"
        yield Removal("drawn image", f"image {image.sha256[:12]}", why, image.size, key=image.sha256)


def _cache(files: Sequence[StoredFile], limit: int) -> Iterator[Removal]:
    newest_first = list(reversed(files))
    for file, total in zip(newest_first, accumulate(file.size for file in newest_first), strict=True):
        if total > limit:
            why = f"newer entries fill {limit // 10**6} MB (cache_megabytes); it is made again when it is needed"
            yield Removal("cache", f"cache file {file.group}/{file.path.name[:12]}", why, paths=(file.path,))
