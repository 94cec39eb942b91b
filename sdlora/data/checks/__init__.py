"""The checks on single images, in the order in which they speak: the first that rejects gives the reason.

A new check joins the file of its subject, or is a new file, and adds its name to a tuple. The score of one on pixels is
taken from the decoded image once and recorded; raise `version` when the same image would get another score. One on
records (captions, licence) is judged whenever the image is decided, which a change of those records brings about; where
a setting turns it off it is silent.

Those on records are imported when they are first asked for: the processes that measure have no use for a database.
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
