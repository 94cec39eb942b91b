"""The checks on single images, in the order in which they speak: the first that rejects gives the reason.

A new check is a new file and one name in a tuple. The score of one on pixels is taken from the decoded image once and
recorded; raise `version` when the same image would get another score. One on records (captions, licence) is judged
whenever the image is decided, which a change of those records brings about; where a setting turns it off it is silent.
"""

from sdlora.data.checks.animated import ANIMATED
from sdlora.data.checks.aspect_ratio import ASPECT_RATIO
from sdlora.data.checks.base import Check, Picture, RecordCheck, Ruling
from sdlora.data.checks.blank import BLANK
from sdlora.data.checks.blurry import BLURRY
from sdlora.data.checks.caption_garbled import CAPTION_GARBLED
from sdlora.data.checks.caption_missing import CAPTION_MISSING
from sdlora.data.checks.caption_shared import CAPTION_SHARED
from sdlora.data.checks.caption_short import CAPTION_SHORT
from sdlora.data.checks.dark import DARK
from sdlora.data.checks.licence import LICENCE
from sdlora.data.checks.light import LIGHT
from sdlora.data.checks.low_information import LOW_INFORMATION
from sdlora.data.checks.mask import MASK
from sdlora.data.checks.pixel_count import PIXEL_COUNT
from sdlora.data.checks.too_small import TOO_SMALL
from sdlora.data.checks.unreadable import UNREADABLE
from sdlora.data.checks.unsafe import UNSAFE

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

RECORD_CHECKS: tuple[RecordCheck, ...] = (
    CAPTION_MISSING,
    CAPTION_SHORT,
    CAPTION_GARBLED,
    CAPTION_SHARED,
    LICENCE,
    MASK,
    UNSAFE,
)

__all__ = ["CHECKS", "RECORD_CHECKS", "Check", "Picture", "RecordCheck", "Ruling"]
