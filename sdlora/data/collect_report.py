"""Outcome of collecting one source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SkippedFile:
    """Skipped file: its path and the reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class CollectReport:
    """Outcome of collecting one source.

    Attributes:
        files: number of image files in the source.
        new: number of images that joined the dataset; `new_files` holds the first paths.
        known: number of files whose images belonged to the dataset already, or that a person removed from it.
        copies: number of known files that repeat another file of this pass.
        recaptioned: number of known images with another caption, licence, source or mask than before.
        skipped: the first files that could not be read; `skipped_count` counts all.
        unmatched: the first files that the metadata names but the source lacks; `unmatched_count` counts all.
        problems: the first places of the source that could not be read and cost no image, such as a line of metadata
            or a caption; `problem_count` counts all.
        bytes_read: bytes of all files that were read; unchanged files are not read.
        left: number of images that left the dataset with the source, if `data.mirror_sources` is set.
    """

    source: str
    files: int
    new: int
    known: int
    copies: int
    recaptioned: int
    skipped_count: int
    unmatched_count: int
    new_files: tuple[str, ...]
    skipped: tuple[SkippedFile, ...]
    unmatched: tuple[str, ...]
    bytes_read: int = 0
    problem_count: int = 0
    problems: tuple[SkippedFile, ...] = ()
    left: int = 0
