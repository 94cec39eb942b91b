"""What a person has decided of an image, as the verdict it gives: it wins over every check."""

from __future__ import annotations

from sdlora.data.ledger import ImageVerdict
from sdlora.store.overrides import PERSON, PURGED, Override, overrides_of

__all__ = ["Override", "overrides_of", "verdict_by"]


def verdict_by(override: Override) -> ImageVerdict:
    """The verdict on an image of which a person has decided."""
    rejected_by = {"accepted": None, "rejected": PERSON, "purged": PURGED}[override.verdict]
    return ImageVerdict(rejected_by, override.reason)
