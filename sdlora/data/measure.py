"""The only place that decodes images for cleaning: bytes in, scores and a fingerprint out."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial

from PIL import Image

from sdlora.data.checks import CHECKS, Picture
from sdlora.data.decode import Header, decode
from sdlora.data.fingerprint import Fingerprint, fingerprint
from sdlora.store.blobs import BlobStore
from sdlora.store.intake import chunks


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
    decoded = decode(content, max_pixels, background)
    picture = Picture(decoded.header, decoded.rgb, decoded.problem)
    scores = ((check.name, check.score(picture)) for check in CHECKS)
    return Measurement(
        sha256=sha256,
        header=picture.header,
        problem=picture.problem,
        scores={name: score for name, score in scores if score is not None},
        decoded_as=decoded.decoded_as(background),
        pixels_sha256=pixels_sha256(picture.rgb) if picture.rgb else None,
        fingerprint=fingerprint(picture.rgb) if picture.rgb else None,
    )


def measure_all(
    blobs: BlobStore, sizes: Mapping[str, int], max_pixels: int, background: str = "white"
) -> Iterator[Measurement]:
    """Measure images in the given order, in worker processes where there is much to do.

    Args:
        blobs: where the bytes are.
        sizes: bytes of each image by SHA-256.
        max_pixels: images whose header promises more are not decoded.
        background: what transparent parts are laid on.

    Raises:
        DataError: the bytes of an image are missing or damaged.
    """
    shas = list(sizes)
    work = partial(_measure_blob, blobs.url, max_pixels, background)
    done = 0
    if _worth_a_pool(sizes.values()):
        try:
            # spawn: a forked child of a process that runs PyTorch's threads can hang.
            with ProcessPoolExecutor(_cores(), mp_context=multiprocessing.get_context("spawn")) as pool:
                for shard in chunks(shas, 2000):  # results wait in memory until they are taken
                    for result in pool.map(work, shard, chunksize=25):
                        yield result
                        done += 1
        except BrokenProcessPool:
            pass  # the caller's script cannot be started again as a worker (no __main__ guard): go on alone
    yield from map(work, shas[done:])


def _worth_a_pool(sizes: Collection[int]) -> bool:
    # About 2 ms an image and 75 ns a byte on one core; workers take some seconds to start.
    seconds = 0.002 * len(sizes) + 75e-9 * sum(sizes)
    return seconds > 10 and _cores() > 1 and not multiprocessing.current_process().daemon


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def pixels_sha256(rgb: Image.Image) -> str:
    """Digest of the size and every pixel: equal for two files that show exactly the same."""
    digest = hashlib.sha256(f"{rgb.width}x{rgb.height} {rgb.mode} ".encode())
    digest.update(rgb.tobytes())
    return digest.hexdigest()


def _measure_blob(url: str, max_pixels: int, background: str, sha256: str) -> Measurement:
    return measure(sha256, BlobStore(url).get(sha256), max_pixels, background)
