"""Checks on records of an image, in the order of evaluation."""

from sdlora.data.checks.base import RecordCheck
from sdlora.data.checks.captions import CAPTION_GARBLED, CAPTION_MISSING, CAPTION_SHARED, CAPTION_SHORT
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
