"""Comparing fingerprints whose hashes are close, and recording the pairs that look alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.data.arrays import FloatArray, IntArray
from sdlora.data.config import MAX_DIFFERENCE
from sdlora.data.duplicates.alignment import Apply, coarse_looks, differences
from sdlora.data.duplicates.fingerprint import Fingerprint
from sdlora.store.intake import chunks, insert_or_ignore
from sdlora.store.tables import FingerprintTable, SimilarPairTable

Pair = tuple[int, int, float]
"""Two fingerprint ids, the smaller first, and how much the two differ."""

_COMPARED = 4_096  # pairs compared at once: their thumbnails take some 25 MB
_KEPT = 8_192  # looks that stay in memory: some 50 MB


@dataclass
class Looks:
    """Fingerprints by id with what a first glance compares of them, the latest of which stay in memory.

    An image whose hashes are close to many others' is asked for again and again while a collection comes in.
    """

    _recent: dict[int, tuple[Fingerprint, FloatArray]] = field(default_factory=dict)
    _pixels: dict[int, str] = field(default_factory=dict)

    def read(self, session: Session, identities: list[int]) -> dict[int, tuple[Fingerprint, FloatArray]]:
        """Those of the ids that are recorded; an image that was purged since its hashes were read has none."""
        table = FingerprintTable
        statements = (select(table.id, table.pixels_sha256).where(table.id.in_(chunk)) for chunk in chunks(identities))
        recorded = {identity: pixels for one in statements for identity, pixels in session.execute(one)}
        # SQLite gives the id of a purged image to the next one.
        kept = [one for one in identities if one in self._recent and self._pixels[one] == recorded.get(one)]
        found = {identity: self._recent.pop(identity) for identity in kept}
        fresh = read_fingerprints(session, recorded.keys() - found.keys())
        if fresh:
            coarse = coarse_looks(list(fresh.values()))
            found.update(zip(fresh, zip(fresh.values(), coarse, strict=True), strict=True))
        self._pixels.update(recorded)
        self._recent.update(found)  # behind all others
        for oldest in list(self._recent)[: max(0, len(self._recent) - _KEPT)]:
            del self._recent[oldest], self._pixels[oldest]
        return found


def compare(session: Session, ids: IntArray, apply: Apply = map, looks: Looks | None = None) -> list[Pair]:
    """Compare (N, 2) pairs of fingerprint ids, record those that look alike at all, and return these."""
    looks = looks or Looks()
    alike: list[Pair] = []
    for some in np.split(ids, range(_COMPARED, len(ids), _COMPARED)):
        found = looks.read(session, np.unique(some).tolist())
        present = some[np.isin(some, list(found)).all(axis=1)]
        if not len(present):
            continue
        pairs = np.searchsorted(np.array(sorted(found)), present)
        fingerprints, cells = zip(*(found[identity] for identity in sorted(found)), strict=True)
        result = differences(fingerprints, pairs, apply, np.stack(cells)).tolist()
        alike += [
            (first, second, difference)
            for (first, second), difference in zip(present.tolist(), result, strict=True)
            if difference <= MAX_DIFFERENCE
        ]
    rows = [{"first_id": first, "second_id": second, "difference": found} for first, second, found in alike]
    insert_or_ignore(session, SimilarPairTable, rows)
    return alike


def read_fingerprints(session: Session, identities: Iterable[int]) -> dict[int, Fingerprint]:
    """Fingerprints by their ids, in the order of these; there may be none of an image that was purged."""
    found: dict[int, Fingerprint] = {}
    table = FingerprintTable
    for chunk in chunks(sorted(identities)):
        statement = select(table.id, table.hashes, table.aspect, table.thumbnail).where(table.id.in_(chunk))
        for identity, hashes, aspect, thumbnail in session.connection().execute(statement.order_by(table.id)):
            found[identity] = Fingerprint(tuple(np.frombuffer(hashes, ">u8").tolist()), aspect, thumbnail)
    return found
