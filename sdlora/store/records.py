"""What the image database answers with: plain frozen values, never rows bound to a session."""

from __future__ import annotations

from collections.abc import Iterable
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
    "folder_name",
    "automatic",
    "file_name",
]
"""Where a caption came from: a person's edit, what lies beside the image, what lies inside it, a model, or a name."""

PRECEDENCE: tuple[tuple[Origin, ...], ...] = (
    ("edited",),
    ("metadata", "sidecar", "dataset", "prompt"),
    ("xmp", "png_text", "exif"),
    ("folder_name",),
    ("automatic",),
    ("file_name",),
)
"""Whose captions count: those of the first row that has any."""


@dataclass(frozen=True)
class Caption:
    """One caption of one image."""

    text: str
    origin: Origin


@dataclass(frozen=True)
class ImageRecord:
    """One image as a person sees it in a list. `verdict` is None until the image has been cleaned."""

    sha256: str
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


@dataclass(frozen=True)
class Counts:
    """How many images have which verdict; `rejected_by` counts them by the check that decided."""

    accepted: int
    rejected: int
    pending: int
    rejected_by: dict[str, int]

    @property
    def total(self) -> int:
        return self.accepted + self.rejected + self.pending


def prevailing_captions(captions: Iterable[Caption]) -> tuple[str, ...]:
    """The captions that count: a person's edits, else what the sources say, else words from a name."""
    captions = tuple(captions)
    for origins in PRECEDENCE:
        chosen = tuple(dict.fromkeys(caption.text for caption in captions if caption.origin in origins))
        if chosen:
            return chosen
    return ()
