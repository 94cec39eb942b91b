"""Records returned by the image database: plain frozen values, not rows bound to a session."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Verdict = Literal["accepted", "rejected"]
Split = Literal["train", "held_out"]
Origin = Literal[
    "edited",
    "metadata",
    "sidecar",
    "dataset",
    "prompt",
    "xmp",
    "png_text",
    "exif",
    "added",
    "folder_name",
    "automatic",
    "file_name",
]
"""Origin of a caption: a person's edit, data next to the image, data inside the image file, the dataset that the image
was added from, a model, or a name."""

PRECEDENCE: tuple[tuple[Origin, ...], ...] = (
    ("edited",),
    ("metadata", "sidecar", "dataset", "prompt"),
    ("xmp", "png_text", "exif"),
    ("added",),
    ("folder_name",),
    ("automatic",),
    ("file_name",),
)
"""Precedence of origins: the captions from the first row with any captions are used."""


@dataclass(frozen=True)
class Caption:
    """Caption of an image with its origin."""

    text: str
    origin: Origin


@dataclass(frozen=True)
class ImageRecord:
    """Image of a dataset as shown in a list.

    Attributes:
        verdict: None until the dataset has been cleaned, and for a removed image.
        removed_at: time at which the image left the dataset; None for a member.
    """

    sha256: str
    dataset: str
    byte_size: int
    format: str | None
    width: int | None
    height: int | None
    verdict: Verdict | None
    rejected_by: str | None
    reason: str | None
    captions: tuple[str, ...]
    split: Split | None
    source: str | None
    licence: str | None
    collected_at: datetime
    files: tuple[str, ...]
    removed_at: datetime | None = None


@dataclass(frozen=True)
class Counts:
    """Number of images by verdict; `rejected_by` counts rejected images by check."""

    accepted: int
    rejected: int
    pending: int
    rejected_by: dict[str, int]

    @property
    def total(self) -> int:
        return self.accepted + self.rejected + self.pending


def prevailing_captions(captions: Iterable[Caption]) -> tuple[str, ...]:
    """Select the captions with the highest precedence: a person's edits, else the sources' captions, else names."""
    captions = tuple(captions)
    origins = (*PRECEDENCE, ())[_rank(captions)]
    return tuple(dict.fromkeys(caption.text for caption in captions if caption.origin in origins))


def captions_of_group(captions: Sequence[Caption], of_near_copies: Sequence[Caption]) -> tuple[str, ...]:
    """Select the captions of a kept image and its copies.

    Captions of near copies count only if their precedence is higher, because a near copy may differ in what a caption
    says.

    Args:
        captions: captions of the image and of copies with the same pixels.
    """
    return prevailing_captions(of_near_copies if _rank(of_near_copies) < _rank(captions) else captions)


def _rank(captions: Sequence[Caption]) -> int:
    """Return the position in PRECEDENCE of the captions that prevail; its length without captions."""
    origins = {caption.origin for caption in captions}
    return next((rank for rank, row in enumerate(PRECEDENCE) if not origins.isdisjoint(row)), len(PRECEDENCE))
