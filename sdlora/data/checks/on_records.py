"""The checks on what is recorded of an image, in the order in which they speak."""

from sdlora.data.checks.base import RecordCheck
from sdlora.data.checks.caption_garbled import CAPTION_GARBLED
from sdlora.data.checks.caption_missing import CAPTION_MISSING
from sdlora.data.checks.caption_shared import CAPTION_SHARED
from sdlora.data.checks.caption_short import CAPTION_SHORT
from sdlora.data.checks.licence import LICENCE
from sdlora.data.checks.mask import MASK
from sdlora.data.checks.unsafe import UNSAFE

RECORD_CHECKS: tuple[RecordCheck, ...] = (
    CAPTION_MISSING,
    CAPTION_SHORT,
    CAPTION_GARBLED,
    CAPTION_SHARED,
    LICENCE,
    MASK,
    UNSAFE,
)
