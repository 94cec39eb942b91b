"""Measuring on other machines: shards of digests, and their results as small files in the blob store."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from sdlora.data.checks import CHECKS
from sdlora.data.decoding.decode import Header, current_decodings
from sdlora.data.duplicates.fingerprint import VERSION, Fingerprint
from sdlora.data.measuring.measure import ImageScores
from sdlora.data.measuring.workers import measure_blobs

IMAGES_PER_SHARD = 1_000
"""Images per shard, for some seconds of work and a result of a few megabytes."""


@dataclass(frozen=True)
class Shard:
    """Images to be measured on another machine. It holds no pixels and no open files."""

    blobs_url: str
    shas: tuple[str, ...]
    max_pixels: int
    background: str

    @cached_property
    def digest(self) -> str:
        """Digest of the work: the images, the versions of the code, and the settings."""
        code = [[check.name, check.version] for check in CHECKS] + [VERSION, *current_decodings(self.background)]
        work = [code, self.max_pixels, self.background, self.shas]
        return hashlib.sha256(json.dumps(work).encode()).hexdigest()


def measure_shard(shard: Shard) -> str:
    """Measure every image of a shard and store the result next to the blobs; return the digest of the shard.

    An existing result, for example of a killed run, is not computed again.

    Raises:
        DataError: the bytes of an image are missing or damaged.
    """
    results = ShardResults(shard.blobs_url)
    if results.read(shard) is None:
        images = list(measure_blobs(shard.blobs_url, shard.max_pixels, shard.background, shard.shas))
        results.write(shard, images)
    return shard.digest


class ShardResults:
    """Storage of results in `<blobs>/measured/<shard digest>`, each written atomically."""

    def __init__(self, blobs_url: str) -> None:
        self._fs: AbstractFileSystem
        self._fs, root = url_to_fs(blobs_url)
        self._folder = f"{root}/measured"

    def write(self, shard: Shard, images: Sequence[ImageScores]) -> None:
        """Store the scores of a shard, in the order of its images."""
        lines = json.dumps([_to_json(image) for image in images]).encode()
        # The digest of the content comes first, so that a torn file is detected.
        content = hashlib.sha256(lines).hexdigest().encode() + gzip.compress(lines, compresslevel=1, mtime=0)
        partial = f"{self._folder}/.partial-{uuid.uuid4().hex}"
        self._fs.makedirs(self._folder, exist_ok=True)
        self._fs.pipe_file(partial, content)
        self._fs.mv(partial, self._path(shard))

    def read(self, shard: Shard) -> list[ImageScores] | None:
        """Load the scores of a shard; None if there is no result, or a damaged one."""
        try:
            content: bytes = self._fs.cat_file(self._path(shard))
            lines = gzip.decompress(content[64:])
        except (FileNotFoundError, EOFError, OSError):  # gzip's errors are OSErrors
            return None
        if hashlib.sha256(lines).hexdigest().encode() != content[:64]:
            return None
        return [_from_json(image_json) for image_json in json.loads(lines)]

    def remove(self, shard: Shard) -> None:
        """Delete the result of a shard, after it has been recorded."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._path(shard))

    def _path(self, shard: Shard) -> str:
        return f"{self._folder}/{shard.digest}"


def _to_json(image: ImageScores) -> dict[str, Any]:
    values = asdict(image)
    if image.fingerprint:
        values["fingerprint"]["thumbnail"] = base64.b64encode(image.fingerprint.thumbnail).decode()
    return values


def _from_json(values: dict[str, Any]) -> ImageScores:
    header, fingerprint = values["header"], values["fingerprint"]
    if fingerprint:
        fingerprint = Fingerprint(
            tuple(fingerprint["hashes"]), fingerprint["aspect"], base64.b64decode(fingerprint["thumbnail"])
        )
    return ImageScores(**{**values, "header": Header(**header) if header else None, "fingerprint": fingerprint})
