"""Thumbnails of stored images for a page, within a budget of bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from sdlora.core.errors import DataError, StorageError
from sdlora.release.images import data_uri
from sdlora.store.image_store import ImageStore

BUDGET_BYTES = 4 * 2**20
SIDE_PX = 160


@dataclass
class Thumbnails:
    """Thumbnails as data URIs by SHA-256, each encoded once, until the budget is spent."""

    store: ImageStore
    budget_left_bytes: int = BUDGET_BYTES
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
            uri = data_uri(self.store.read_bytes(sha256), SIDE_PX)
        except (DataError, StorageError):  # the page shows the facts about the image without a picture
            return None
        self.budget_left_bytes -= len(uri or "")
        return uri
