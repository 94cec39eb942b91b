"""Crowds: so many copies of one picture that comparing each with each would cost their square.

The first of them, the hub, stands for the others: what is the same as the hub is not compared with the rest of its
crowd when it comes in. Cleaning asks for those pairs when it decides (`sdlora.data.duplicates.crowds`).
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from sdlora.store.intake import chunks
from sdlora.store.tables import SimilarPairTable

CROWD = 32
"""Fingerprints that are the same as one other make it a hub; below so many, each is compared with each."""

SAME_DIFFERENCE = 20.0
"""Grey levels below which a fingerprint is the same as another: as much as a coarse JPEG does to a drawing."""


def same_as(session: Session, fingerprint_ids: Iterable[int]) -> dict[int, set[int]]:
    """The fingerprints that are the same as each of these, as far as they have been compared."""
    found: dict[int, set[int]] = {one: set() for one in fingerprint_ids}
    table = SimilarPairTable
    for chunk in chunks(sorted(found)):
        for own, other in ((table.first_id, table.second_id), (table.second_id, table.first_id)):
            statement = select(own, other).where(own.in_(chunk), table.difference < SAME_DIFFERENCE)
            for one, mate in session.connection().execute(statement):
                found[one].add(mate)
    return found


def crowd_of(session: Session, fingerprint_id: int) -> set[int]:
    """All that are the same as a hub that this one is the same as, or is; itself included. Empty without a hub."""
    near = same_as(session, [fingerprint_id])[fingerprint_id]
    around = same_as(session, near | {fingerprint_id})
    hubs = [mates | {hub} for hub, mates in around.items() if len(mates) >= CROWD]
    return set().union(*hubs)


def pairs_of(fingerprint_ids: Iterable[int]) -> ColumnElement[bool]:
    """Pairs with one of these (at most a chunk of them) on either side."""
    chunk = list(fingerprint_ids)
    return or_(SimilarPairTable.first_id.in_(chunk), SimilarPairTable.second_id.in_(chunk))
