"""Pictures for pages: shrunk, re-encoded, and written as data URIs; thumbnails within a budget of bytes."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from sdlora.core.errors import DataError, StorageError
from sdlora.data.decoding.colour import to_srgb
from sdlora.data.decoding.decode import opened, upright
from sdlora.store.image_store import ImageStore

THUMBNAIL_BUDGET_BYTES = 4 * 2**20
THUMBNAIL_PX = 160
_LOSSLESS_PX = 128  # small images stay PNG, pixel for pixel; larger ones become JPEG


def data_uri(content: bytes, max_side_px: int = 256) -> str | None:
    """Encode the image as a data URI of at most `max_side_px`; None if it cannot be read.

    The picture is decoded as in cleaning and encoded again, so only the pixels of an untrusted file reach the page.
    """
    try:
        with opened(content) as picture:
            if picture.width * picture.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                return None
            picture.draft("RGB", (max_side_px, max_side_px))
            picture.load()
            image = to_srgb(upright(picture), "white").rgb
    # Pillow's decoders raise many kinds of errors on damaged files (OSError, SyntaxError, ValueError, struct.error).
    except Exception:  # noqa: BLE001
        return None
    image.thumbnail((max_side_px, max_side_px))
    buffer = io.BytesIO()
    file_format = "PNG" if max(image.size) <= _LOSSLESS_PX else "JPEG"
    image.save(buffer, file_format, optimize=True, **({"quality": 88} if file_format == "JPEG" else {}))
    return f"data:image/{file_format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def file_data_uri(path: Path, max_side_px: int = 256) -> str | None:
    """Encode an image file as a data URI; None if it is missing or cannot be read."""
    return data_uri(path.read_bytes(), max_side_px) if path.is_file() else None


@dataclass
class Thumbnails:
    """Thumbnails as data URIs by SHA-256, each encoded once, until the budget is spent."""

    store: ImageStore
    budget_left_bytes: int = THUMBNAIL_BUDGET_BYTES
    uris: dict[str, str | None] = field(default_factory=dict)

    def of(self, sha256: str) -> str | None:
        """Return the thumbnail; None if the image cannot be read, its bytes are gone, or the budget is spent."""
        if sha256 not in self.uris:
            self.uris[sha256] = self._encode(sha256)
        return self.uris[sha256]

    def _encode(self, sha256: str) -> str | None:
        if self.budget_left_bytes <= 0:
            return None
        try:
            uri = data_uri(self.store.read_bytes(sha256), THUMBNAIL_PX)
        except (DataError, StorageError):  # the page shows the facts about the image without a picture
            return None
        self.budget_left_bytes -= len(uri or "")
        return uri
