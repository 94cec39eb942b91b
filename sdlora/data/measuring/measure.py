"""The only place that looks at images for cleaning: bytes in, scores and a fingerprint out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sdlora.data.alike.fingerprint import Fingerprint, fingerprint
from sdlora.data.checks import CHECKS, Picture
from sdlora.data.decoding.decode import Decoded, Header, decode


@dataclass(frozen=True)
class Measurement:
    """What was learnt of one image. `scores` are by check name; a check that had nothing to see has none."""

    sha256: str
    header: Header | None
    problem: str | None
    scores: dict[str, float]
    decoded_as: str
    pixels_sha256: str | None
    fingerprint: Fingerprint | None


def measure(sha256: str, content: bytes, max_pixels: int, background: str = "white") -> Measurement:
    """Score one image by all checks; nothing is decoded if the header promises more than `max_pixels`."""
    return measured(sha256, decode(content, max_pixels, background), background)


def measured(sha256: str, decoded: Decoded, background: str) -> Measurement:
    """Score what became of an image's bytes by all checks."""
    picture = Picture(decoded.header, decoded.rgb, decoded.problem)
    scores = ((check.name, check.score(picture)) for check in CHECKS)
    return Measurement(
        sha256=sha256,
        header=picture.header,
        problem=picture.problem,
        scores={name: score for name, score in scores if score is not None},
        decoded_as=decoded.decoded_as(background),
        pixels_sha256=pixels_sha256(picture) if picture.rgb else None,
        fingerprint=fingerprint(picture.rgb) if picture.rgb else None,
    )


def pixels_sha256(picture: Picture) -> str:
    """Digest of the size and every pixel: equal for two files that show exactly the same."""
    assert picture.rgb is not None
    digest = hashlib.sha256(f"{picture.rgb.width}x{picture.rgb.height} RGB ".encode())
    digest.update(picture.colours.data)
    return digest.hexdigest()
