"""Copies: which image of each group is kept, and why the others are not. Nothing is deleted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sdlora.data.checks.base import Ruling, digest_of, parameters_digest
from sdlora.data.config import DataConfig
from sdlora.data.duplicates.fingerprint import VERSION

EXACT = "exact_duplicate"
NEAR = "near_duplicate"
_NO_PARAMETERS = parameters_digest({})

LookCloser = Callable[[int, Iterable[int]], Iterable[tuple[int, int, float]]]


@dataclass(frozen=True)
class Candidate:
    """An image that passed every check on single images."""

    image_id: int
    sha256: str
    fingerprint_id: int
    pixels: int
    kept_by_person: bool = False


@dataclass(frozen=True)
class Copy:
    """What an image is a copy of, and by how much the two differ, in grey levels (0: the same pixels)."""

    kept: Candidate
    difference: float
    exact: bool


def find_copies(
    candidates: Iterable[Candidate],
    pairs: Iterable[tuple[int, int, float]],
    threshold: float,
    look_closer: LookCloser = lambda fingerprint_id, known: (),
) -> dict[int, Copy]:
    """The candidates that are copies of a better one, by image id.

    The best is the one that a person keeps, then the largest, then the one collected first. An image is a copy of a
    kept one only, so that a chain of small changes does not swallow its two ends.

    Args:
        pairs: (fingerprint id, fingerprint id, difference).
        threshold: pairs that differ less are copies.
        look_closer: called once for each fingerprint that is kept, with those it is paired with; returns pairs that
            are lacking. Only pairs with a kept image decide, so that of a cluster few have to be known.
    """
    neighbours: defaultdict[int, list[tuple[float, int]]] = defaultdict(list)

    def join(pairs: Iterable[tuple[int, int, float]]) -> None:
        for first_id, second_id, difference in pairs:
            if difference < threshold:
                neighbours[first_id].append((difference, second_id))
                neighbours[second_id].append((difference, first_id))

    def keep(candidate: Candidate) -> None:
        if candidate.fingerprint_id not in kept:
            kept[candidate.fingerprint_id] = candidate
            join(look_closer(candidate.fingerprint_id, [other for _, other in neighbours[candidate.fingerprint_id]]))

    join(pairs)
    kept: dict[int, Candidate] = {}
    seen: dict[int, Candidate] = {}
    copies: dict[int, Copy] = {}
    for candidate in sorted(
        candidates, key=lambda candidate: (not candidate.kept_by_person, -candidate.pixels, candidate.image_id)
    ):
        twin = seen.setdefault(candidate.fingerprint_id, candidate)
        if candidate.kept_by_person:
            keep(candidate)
            continue
        if twin is not candidate:
            # What a near copy's twin copies is the image that was kept instead of both.
            copies[candidate.image_id] = copies.get(twin.image_id, Copy(twin, 0.0, exact=True))
            continue
        near_originals = [
            (difference, kept[other]) for difference, other in neighbours[candidate.fingerprint_id] if other in kept
        ]
        if near_originals:
            difference, original = min(near_originals, key=lambda pair: (pair[0], pair[1].image_id))
            copies[candidate.image_id] = Copy(original, difference, exact=False)
        else:
            keep(candidate)
    return copies


def copy_rulings(copy: Copy | None, config: DataConfig) -> Sequence[Ruling]:
    """What the two checks for copies say of an image."""
    exact = near = None
    if copy is not None and copy.exact:
        exact = f"shows the same pixels as image {copy.kept.sha256[:12]}, which is kept"
    elif copy is not None:
        near = (
            f"differs by {copy.difference:.1f} grey levels from image {copy.kept.sha256[:12]}, which is kept; "
            f"less than near_duplicate_difference = {config.near_duplicate_difference:g}"
        )
    difference = copy.difference if copy is not None else None
    return (
        Ruling(EXACT, VERSION, _NO_PARAMETERS, float(exact is not None), exact),
        Ruling(NEAR, VERSION, near_parameters(config), difference, near),
    )


def near_parameters(config: DataConfig) -> str:
    """Digest of the settings under which near duplicates are found."""
    return digest_of(("near_duplicate_difference",), config)
