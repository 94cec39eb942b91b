"""Comparing fingerprints whose hashes are close, and recording the pairs that look alike."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.data.alike.alignment import Apply, differences
from sdlora.data.alike.fingerprint import Fingerprint
from sdlora.data.config import MAX_DIFFERENCE
from sdlora.store.intake import chunks, insert_or_ignore
from sdlora.store.tables import FingerprintTable, SimilarPairTable

IntArray = npt.NDArray[np.int64]
Pair = tuple[int, int, float]
"""Two fingerprint ids, the smaller first, and how much the two differ."""

_COMPARED = 4_096  # pairs compared at once: their thumbnails take some 25 MB


def compare(session: Session, ids: IntArray, apply: Apply = map) -> list[Pair]:
    """Compare (N, 2) pairs of fingerprint ids, record those that look alike at all, and return these."""
    alike: list[Pair] = []
    for some in np.split(ids, range(_COMPARED, len(ids), _COMPARED)):
        found = read_fingerprints(session, np.unique(some).tolist())
        # Nothing is found of an image that was purged since its hashes were read.
        present = some[np.isin(some, list(found)).all(axis=1)]
        places = {identity: place for place, identity in enumerate(found)}
        pairs = np.array([[places[first], places[second]] for first, second in present.tolist()], np.int64)
        result = differences(list(found.values()), pairs.reshape(-1, 2), apply).tolist()
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
