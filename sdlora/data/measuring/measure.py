"""The only place that looks at images for cleaning: bytes in, scores and a fingerprint out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sdlora.core.errors import DataError
from sdlora.data.checks import CHECKS, Picture
from sdlora.data.decoding.decode import Decoded, Header, decode
from sdlora.data.decoding.stack import Stack, stacks
from sdlora.data.duplicates.fingerprint import Fingerprint, fingerprints

_PIXELS_AT_ONCE = 1 << 20  # decoded before any is measured: some 10 MB


@dataclass(frozen=True)
class ImageScores:
    """Scores and fingerprint of one image. `scores` are by check name; a check that had nothing to see has none."""

    sha256: str
    header: Header | None
    problem: str | None
    scores: dict[str, float]
    decoded_as: str
    pixels_sha256: str | None
    fingerprint: Fingerprint | None


def measure(sha256: str, content: bytes, max_pixels: int, background: str = "white") -> ImageScores:
    """Score one image by all checks; nothing is decoded if the header promises more than `max_pixels`."""
    return next(measure_many([(sha256, content)], max_pixels, background))


def measure_many(
    images: Iterable[tuple[str, bytes]], max_pixels: int, background: str = "white"
) -> Iterator[ImageScores]:
    """The same of many images by SHA-256 and bytes, in their order. Small ones of one size are measured together.

    What is measured of an image does not depend, to the bit, on the others.

    Raises:
        DataError: `images` does, because bytes are missing; those before it are measured first.
    """
    shas: list[str] = []
    lot: list[Decoded] = []
    pixels = 0
    try:
        for sha256, content in images:
            decoded = decode(content, max_pixels, background)
            shas.append(sha256)
            lot.append(decoded)
            pixels += decoded.rgb.width * decoded.rgb.height if decoded.rgb else 0
            if pixels >= _PIXELS_AT_ONCE:
                yield from measured(shas, lot, background)
                shas, lot, pixels = [], [], 0
    except DataError:  # of the next image's bytes; what was decoded before it is not lost
        yield from measured(shas, lot, background)
        raise
    yield from measured(shas, lot, background)


def measured(shas: Sequence[str], decoded: Sequence[Decoded], background: str) -> list[ImageScores]:
    """Score what became of images' bytes by all checks."""
    places = [place for place, one in enumerate(decoded) if one.rgb is not None]
    found = {place: _measured(shas[place], one, background) for place, one in enumerate(decoded) if one.rgb is None}
    for some, stack in stacks([image for one in decoded if (image := one.rgb) is not None]):
        for number, (some_place, look) in enumerate(zip(some, fingerprints(stack), strict=True)):
            place = places[some_place]
            found[place] = _measured(shas[place], decoded[place], background, stack, number, look)
    return [found[place] for place in range(len(decoded))]


def _measured(
    sha256: str,
    decoded: Decoded,
    background: str,
    stack: Stack | None = None,
    number: int = 0,
    look: Fingerprint | None = None,
) -> ImageScores:
    picture = Picture(decoded.header, decoded.problem, stack, number)
    scores = [(check.name, check.score(picture)) for check in CHECKS]
    return ImageScores(
        sha256=sha256,
        header=decoded.header,
        problem=decoded.problem,
        scores={name: score for name, score in scores if score is not None},
        decoded_as=decoded.decoded_as(background),
        pixels_sha256=_pixels_sha256(stack, number) if stack else None,
        fingerprint=look,
    )


def _pixels_sha256(stack: Stack, number: int) -> str:
    """Digest of the size and every pixel: equal for two files that show exactly the same."""
    width, height = stack.size
    digest = hashlib.sha256(f"{width}x{height} RGB ".encode())
    digest.update(stack.pixels[number].data)
    return digest.hexdigest()
