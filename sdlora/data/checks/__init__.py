"""Checks on single images, in the order of evaluation. The first check that rejects an image gives the reason.

To add a check, write it in the file of its subject or in a new file, and add its name to a tuple. A check on pixels
(`CHECKS`) computes its score once from the decoded image, and the score is recorded. Raise the check's `version` if the
same image would get another score. A check on records (`RECORD_CHECKS`: captions, licence, mask) runs whenever an image
is decided, and a changed record makes the image undecided. A check that is off gives no ruling.

Checks on records are imported on first use, because worker processes that measure need no database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdlora.data.checks.animated import ANIMATED
from sdlora.data.checks.base import Check, Picture, RecordCheck, Ruling
from sdlora.data.checks.blurry import BLURRY
from sdlora.data.checks.brightness import DARK, LIGHT
from sdlora.data.checks.geometry import ASPECT_RATIO, PIXEL_COUNT, TOO_SMALL
from sdlora.data.checks.levels import BLANK, LOW_INFORMATION
from sdlora.data.checks.unreadable import UNREADABLE

if TYPE_CHECKING:
    from sdlora.data.checks.on_records import RECORD_CHECKS

CHECKS: tuple[Check, ...] = (
    PIXEL_COUNT,
    UNREADABLE,
    TOO_SMALL,
    ASPECT_RATIO,
    ANIMATED,
    BLANK,
    LOW_INFORMATION,
    DARK,
    LIGHT,
    BLURRY,
)

__all__ = ["CHECKS", "RECORD_CHECKS", "Check", "Picture", "RecordCheck", "Ruling"]


def __getattr__(name: str) -> Any:
    if name != "RECORD_CHECKS":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sdlora.data.checks.on_records import RECORD_CHECKS

    return RECORD_CHECKS
