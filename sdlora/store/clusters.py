"""Clusters: large groups of copies of one picture, which avoid comparing each copy with each other copy.

The first member is the representative. A new fingerprint that is the same as the representative is not compared with
the other members. Cleaning compares the pairs that it needs for a decision (`sdlora.data.duplicates.clusters`).
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from sdlora.store.bulk import chunks
from sdlora.store.tables.images import SimilarPairTable

MIN_MEMBERS = 32
"""Number of same fingerprints that make a fingerprint a representative; below it, all pairs are compared."""

SAME_DIFFERENCE = 20.0
"""Difference in grey levels below which fingerprints are the same: about the effect of a coarse JPEG on a drawing."""


def same_as(session: Session, fingerprint_ids: Iterable[int]) -> dict[int, set[int]]:
    """Find the fingerprints that are the same as each given one, among the compared pairs."""
    same: dict[int, set[int]] = {fingerprint_id: set() for fingerprint_id in fingerprint_ids}
    table = SimilarPairTable
    for chunk in chunks(sorted(same)):
        for own, other in ((table.first_id, table.second_id), (table.second_id, table.first_id)):
            statement = select(own, other).where(own.in_(chunk), table.difference < SAME_DIFFERENCE)
            for fingerprint_id, member in session.connection().execute(statement):
                same[fingerprint_id].add(member)
    return same


def cluster_of(session: Session, fingerprint_id: int) -> set[int]:
    """Find all members of the clusters of a fingerprint, including itself; empty without a cluster."""
    direct = same_as(session, [fingerprint_id])[fingerprint_id]
    members_by_id = same_as(session, direct | {fingerprint_id})
    return set().union(
        *(
            members | {representative}
            for representative, members in members_by_id.items()
            if len(members) >= MIN_MEMBERS
        )
    )


def pairs_of(fingerprint_ids: Iterable[int]) -> ColumnElement[bool]:
    """Build the condition for pairs with one of the fingerprints (at most a chunk) on either side."""
    chunk = list(fingerprint_ids)
    return or_(SimilarPairTable.first_id.in_(chunk), SimilarPairTable.second_id.in_(chunk))
