"""The pairs of images that look alike, recorded once, when an image is first decoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np
import numpy.typing as npt
from sqlalchemy import select
from sqlalchemy.orm import Session

from sdlora.data.config import MAX_DIFFERENCE
from sdlora.data.fingerprint import HASH_DISTANCE, VERSION, Fingerprint, Look, difference, hamming_distances
from sdlora.store.intake import chunks, insert_or_ignore
from sdlora.store.tables import FingerprintTable, SimilarPairTable


class SimilarPairs:
    """The recorded hashes in memory, 16 bytes each, for an exact search by Hamming distance."""

    def __init__(self) -> None:
        self._ids: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._hashes: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def add(self, session: Session, looks: Mapping[str, Fingerprint]) -> dict[str, int]:
        """Record fingerprints and all the pairs that they make; returns fingerprint ids by digest of the pixels.

        `session` holds the write lock, so that no fingerprint of another process slips in uncompared.
        """
        self._read_on(session)  # what other processes have added, and compared, since
        rows = [
            {
                "pixels_sha256": pixels,
                "version": VERSION,
                "hash": look.hash,
                "aspect": look.aspect,
                "thumbnail": look.thumbnail,
            }
            for pixels, look in looks.items()
        ]
        insert_or_ignore(session, FingerprintTable, rows)
        first_new = self._read_on(session)
        self._record_pairs(session, range(first_new, len(self._ids)))
        return self._ids_by_pixels(session, list(looks))

    def _read_on(self, session: Session) -> int:
        """Take in the fingerprints that were added since the last look; returns the position of the first."""
        known = len(self._ids)
        statement = select(FingerprintTable.id, FingerprintTable.hash).order_by(FingerprintTable.id)
        statement = statement.where(FingerprintTable.version == VERSION)
        statement = statement.where(FingerprintTable.id > (int(self._ids[-1]) if known else 0))
        rows = np.array([tuple(row) for row in session.execute(statement)], np.int64).reshape(-1, 2)
        self._ids = np.concatenate([self._ids, rows[:, 0]])
        self._hashes = np.concatenate([self._hashes, rows[:, 1]])
        return known

    def _record_pairs(self, session: Session, new: range) -> None:
        alike: list[tuple[int, int]] = []
        for position in new:
            distances = hamming_distances(self._hashes[:position], int(self._hashes[position]))
            near = self._ids[:position][distances <= HASH_DISTANCE]
            alike += [(int(earlier), int(self._ids[position])) for earlier in near]
        found = _fingerprints(session, {identity for pair in alike for identity in pair})
        looks = {identity: Look(one) for identity, one in found.items()}
        rows = [
            {"first_id": first, "second_id": second, "difference": distance}
            for first, second in alike
            if first in looks  # it was purged since the hashes were read
            and (distance := difference(looks[first], looks[second])) <= MAX_DIFFERENCE
        ]
        insert_or_ignore(session, SimilarPairTable, rows)

    def _ids_by_pixels(self, session: Session, pixels: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for chunk in chunks(pixels):
            statement = select(FingerprintTable.pixels_sha256, FingerprintTable.id).where(
                FingerprintTable.pixels_sha256.in_(chunk), FingerprintTable.version == VERSION
            )
            found.update((digest, identity) for digest, identity in session.execute(statement))
        return found


def group_around(
    session: Session, fingerprint_ids: Set[int], threshold: float
) -> tuple[set[int], list[tuple[int, int, float]]]:
    """The fingerprints that are joined to these by a chain of pairs below the threshold, and all such pairs."""
    group, fresh = set(fingerprint_ids), sorted(fingerprint_ids)
    pairs: dict[tuple[int, int], float] = {}
    table = SimilarPairTable
    below = select(table.first_id, table.second_id, table.difference).where(table.difference < threshold)
    while fresh:
        reached: set[int] = set()
        for chunk in chunks(fresh):
            for end in (table.first_id, table.second_id):
                for first, second, found in session.execute(below.where(end.in_(chunk))):
                    pairs[first, second] = found
                    reached |= {first, second}
        fresh = sorted(reached - group)
        group |= reached
    return group, [(first, second, found) for (first, second), found in pairs.items()]


def pairs_below(session: Session, threshold: float) -> list[tuple[int, int, float]]:
    """(fingerprint id, fingerprint id, difference) of all pairs that differ less than the threshold."""
    statement = select(SimilarPairTable.first_id, SimilarPairTable.second_id, SimilarPairTable.difference)
    return [tuple(row) for row in session.execute(statement.where(SimilarPairTable.difference < threshold))]


def _fingerprints(session: Session, identities: Iterable[int]) -> dict[int, Fingerprint]:
    found: dict[int, Fingerprint] = {}
    for chunk in chunks(sorted(identities)):
        statement = select(
            FingerprintTable.id, FingerprintTable.hash, FingerprintTable.aspect, FingerprintTable.thumbnail
        ).where(FingerprintTable.id.in_(chunk))
        found.update((row.id, Fingerprint(row.hash, row.aspect, row.thumbnail)) for row in session.execute(statement))
    return found
