"""Takedown as a run sees it: an image of the run's snapshot was purged.

The tombstone in the image database is the only signal. It reaches every process of every machine that shares the
database, and no process has to be found.
"""

from __future__ import annotations

import logging
import time

from sdlora.core.errors import StorageError, TakedownError
from sdlora.data.snapshot import Snapshot
from sdlora.store.image_store import ImageStore
from sdlora.store.overrides import tombstones

POLL_SECONDS = 2.0
"""Time between two looks into the database; a look takes less than a millisecond with SQLite."""

_logger = logging.getLogger(__name__)


class TakedownWatch:
    """Watch for purged images of one snapshot."""

    def __init__(self, store: ImageStore, snapshot: Snapshot) -> None:
        self._store, self._snapshot = store, snapshot
        self._shas = {row.sha256 for row in snapshot.rows}
        self._found = False
        self._looked_at = -POLL_SECONDS

    def purged(self, *, waits: bool = True) -> dict[str, str]:
        """Return the reasons of purged images of the snapshot, by SHA-256.

        Args:
            waits: wait for a database server that is away.

        Raises:
            StorageError: the database cannot be read.
        """
        with self._store.read(waits=waits) as session:
            reasons = tombstones(session)
        return {sha256: reasons[sha256] for sha256 in sorted(reasons.keys() & self._shas)}

    def found(self, *, at_once: bool = False) -> bool:
        """Return True if an image was purged.

        A database that does not answer is a warning, because `refuse` asks again before results count.

        Args:
            at_once: look now; otherwise at most every `POLL_SECONDS`.
        """
        now = time.monotonic()
        if not self._found and (at_once or now - self._looked_at >= POLL_SECONDS):
            self._looked_at = now
            try:
                self._found = bool(self.purged(waits=False))
            except StorageError as error:
                _logger.warning("Cannot look for purged images, training goes on: %s", error)
        return self._found

    def refuse(self) -> None:
        """Stop if an image was purged.

        Raises:
            TakedownError: an image was purged.
            StorageError: the database cannot be read.
        """
        purged = self.purged()
        if purged:
            raise self.error(purged)

    def error(self, purged: dict[str, str]) -> TakedownError:
        """Describe purged images, given as by `purged`, and the remedy."""
        images = "; ".join(f"image {sha256[:12]} was {reason}" for sha256, reason in list(purged.items())[:3])
        more = f"; and {len(purged) - 3} more" if len(purged) > 3 else ""
        return TakedownError(
            f"Snapshot {self._snapshot.digest[:12]} of this run holds what was taken down: {images}{more}. The run has "
            "stopped, and nothing unpublished that learnt from it is kept. Start the run again, such as with "
            "`sdlora run`: it works without it."
        )
