"""The checks on single images, in the order in which they speak: the first that rejects gives the reason.

A new check is a new file and one name in this tuple. Its score is taken from the decoded images once and recorded;
raise `version` when the same image would get another score.
"""

from sdlora.data.checks.animated import ANIMATED
from sdlora.data.checks.aspect_ratio import ASPECT_RATIO
from sdlora.data.checks.base import Check, Picture, RecordCheck, Ruling
from sdlora.data.checks.blank import BLANK
from sdlora.data.checks.blurry import BLURRY
from sdlora.data.checks.dark import DARK
from sdlora.data.checks.light import LIGHT
from sdlora.data.checks.low_information import LOW_INFORMATION
from sdlora.data.checks.pixel_count import PIXEL_COUNT
from sdlora.data.checks.too_small import TOO_SMALL
from sdlora.data.checks.unreadable import UNREADABLE

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

RECORD_CHECKS: tuple[RecordCheck, ...] = ()

__all__ = ["CHECKS", "RECORD_CHECKS", "Check", "Picture", "RecordCheck", "Ruling"]
