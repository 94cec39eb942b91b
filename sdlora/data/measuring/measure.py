"""Measuring of images for cleaning: from bytes to scores and a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sdlora.core.errors import DataError
from sdlora.data.checks import CHECKS, Picture
from sdlora.data.decoding.decode import Decoded, Header, decode
from sdlora.data.decoding.stack import Stack, stacks
from sdlora.data.duplicates.fingerprint import Fingerprint, fingerprints

_PIXELS_PER_BATCH = 1 << 20  # limit of decoded pixels in memory: some 10 MB


@dataclass(frozen=True)
class ImageScores:
    """Scores and fingerprint of one image. `scores` holds a score per check name; some checks may have none."""

    sha256: str
    header: Header | None
    problem: str | None
    scores: dict[str, float]
    decoded_as: str
    pixels_sha256: str | None
    fingerprint: Fingerprint | None


def measure(sha256: str, content: bytes, max_pixels: int, background: str = "white") -> ImageScores:
    """Score one image by all checks. It is not decoded if it has more than `max_pixels` by its header."""
    return next(measure_many([(sha256, content)], max_pixels, background))


def measure_many(
    images: Iterable[tuple[str, bytes]], max_pixels: int, background: str = "white"
) -> Iterator[ImageScores]:
    """Score images, given as (SHA-256, bytes), in their order. Small images of one size are measured together.

    The results for one image do not depend on the other images, to the bit.

    Raises:
        DataError: raised by `images` if bytes are missing; the images before are yielded first.
    """
    shas: list[str] = []
    decoded_images: list[Decoded] = []
    pixels = 0
    try:
        for sha256, content in images:
            decoded_image = decode(content, max_pixels, background)
            shas.append(sha256)
            decoded_images.append(decoded_image)
            pixels += decoded_image.rgb.width * decoded_image.rgb.height if decoded_image.rgb else 0
            if pixels >= _PIXELS_PER_BATCH:
                yield from score_decoded(shas, decoded_images, background)
                shas, decoded_images, pixels = [], [], 0
    except DataError:  # the next image's bytes are missing; images decoded before it are still yielded
        yield from score_decoded(shas, decoded_images, background)
        raise
    yield from score_decoded(shas, decoded_images, background)


def score_decoded(shas: Sequence[str], decoded_images: Sequence[Decoded], background: str) -> list[ImageScores]:
    """Score images by all checks, decodable or not."""
    readable = [index for index, image in enumerate(decoded_images) if image.rgb is not None]
    scores_by_index = {
        index: _score(shas[index], image, background) for index, image in enumerate(decoded_images) if image.rgb is None
    }
    for positions, stack in stacks([rgb for image in decoded_images if (rgb := image.rgb) is not None]):
        for stack_position, (position, fingerprint) in enumerate(zip(positions, fingerprints(stack), strict=True)):
            index = readable[position]
            scores_by_index[index] = _score(
                shas[index], decoded_images[index], background, stack, stack_position, fingerprint
            )
    return [scores_by_index[index] for index in range(len(decoded_images))]


def _score(
    sha256: str,
    decoded: Decoded,
    background: str,
    stack: Stack | None = None,
    stack_position: int = 0,
    fingerprint: Fingerprint | None = None,
) -> ImageScores:
    picture = Picture(decoded.header, decoded.problem, stack, stack_position)
    scores = [(check.name, check.score(picture)) for check in CHECKS]
    return ImageScores(
        sha256=sha256,
        header=decoded.header,
        problem=decoded.problem,
        scores={name: score for name, score in scores if score is not None},
        decoded_as=decoded.decoded_as(background),
        pixels_sha256=_pixels_sha256(stack, stack_position) if stack else None,
        fingerprint=fingerprint,
    )


def _pixels_sha256(stack: Stack, stack_position: int) -> str:
    """Return the digest of size and pixels, equal for two files with the same pixels."""
    width, height = stack.size
    digest = hashlib.sha256(f"{width}x{height} RGB ".encode())
    digest.update(stack.pixels[stack_position].data)
    return digest.hexdigest()
