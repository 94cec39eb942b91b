"""Clusters: so many copies of one picture that comparing each with each would cost their square.

The first of them is the representative. A fingerprint that is the same as the representative is not compared with the
other members of the cluster when it comes in. Cleaning asks for those pairs when it decides
(`sdlora.data.duplicates.clusters`).
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from sdlora.store.intake import chunks
from sdlora.store.tables import SimilarPairTable

MIN_MEMBERS = 32
"""Fingerprints that are the same as one other make it a representative; below so many, each is compared with each."""

SAME_DIFFERENCE = 20.0
"""Grey levels below which a fingerprint is the same as another: as much as a coarse JPEG does to a drawing."""


def same_as(session: Session, fingerprint_ids: Iterable[int]) -> dict[int, set[int]]:
    """The fingerprints that are the same as each of these, as far as they have been compared."""
    same: dict[int, set[int]] = {fingerprint_id: set() for fingerprint_id in fingerprint_ids}
    table = SimilarPairTable
    for chunk in chunks(sorted(same)):
        for own, other in ((table.first_id, table.second_id), (table.second_id, table.first_id)):
            statement = select(own, other).where(own.in_(chunk), table.difference < SAME_DIFFERENCE)
            for fingerprint_id, member in session.connection().execute(statement):
                same[fingerprint_id].add(member)
    return same


def cluster_of(session: Session, fingerprint_id: int) -> set[int]:
    """All members of the clusters that this fingerprint belongs to, itself included; empty without a cluster."""
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
    """Pairs with one of these (at most a chunk of them) on either side."""
    chunk = list(fingerprint_ids)
    return or_(SimilarPairTable.first_id.in_(chunk), SimilarPairTable.second_id.in_(chunk))
