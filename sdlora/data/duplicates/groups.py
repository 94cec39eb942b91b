"""Selection of the image to keep from each group of copies, with a reason for every other image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sdlora.data.checks.base import Ruling, digest_of
from sdlora.data.config import DataConfig
from sdlora.data.duplicates.fingerprint import VERSION

EXACT = "exact_duplicate"
NEAR = "near_duplicate"

LookCloser = Callable[[int, Iterable[int]], Iterable[tuple[int, int, float]]]


_UNSURE_FROM = 16.0
"""Grey levels from which the reason calls a near copy unsure.

Of icon sets, 4 of 10 false pairs and 1 of 20 changed copies differ by 16 to 22 (docs/experiments.md)."""

_LOSSY_FORMATS = ("JPEG", "WEBP", "AVIF", "JPEG2000", "GIF")
"""Formats that mostly leave something out; GIF keeps 256 colours. Copies are saved in them more often than not."""


@dataclass(frozen=True)
class Candidate:
    """Image of a dataset that passed every check on single images.

    Attributes:
        pixels: width times height.
        format: name of the file format, as Pillow writes it.
        has_side: whether an earlier snapshot of the dataset holds the image.
    """

    member_id: int
    sha256: str
    fingerprint_id: int
    pixels: int
    format: str = ""
    byte_size: int = 0
    kept_by_person: bool = False
    has_side: bool = False

    @property
    def preference(self) -> tuple[bool, int, bool, int, bool, int, str]:
        """Sort key of a group; the image that sorts first is kept.

        In order: kept by a person, more pixels, a lossless format, more bytes in a lossy format. Of equally good files
        one with a side of the split stays, so that no snapshot changes needlessly. Then fewer bytes, because the noise
        of an earlier compression costs bytes in a lossless format. SHA-256 comes last, so that the order of collection
        does not matter.
        """
        lossy = self.format in _LOSSY_FORMATS
        lossy_bytes = self.byte_size if lossy else 0
        return (
            not self.kept_by_person,
            -self.pixels,
            lossy,
            -lossy_bytes,
            not self.has_side,
            self.byte_size,
            self.sha256,
        )


@dataclass(frozen=True)
class Copy:
    """Copy of a kept image. `difference` is in grey levels, 0 for the same pixels."""

    kept: Candidate
    difference: float
    exact: bool


def find_copies(
    candidates: Iterable[Candidate],
    pairs: Iterable[tuple[int, int, float]],
    threshold: float,
    look_closer: LookCloser = lambda fingerprint_id, known: (),
) -> dict[int, Copy]:
    """Find the candidates that are copies of a better candidate, by member id.

    The best candidate is the first by `Candidate.preference`. Only a copy of a kept image is rejected, so that a chain
    of small changes keeps both of its ends. The result does not depend on the order of the candidates.

    Args:
        pairs: (fingerprint id, fingerprint id, difference).
        threshold: pairs that differ less are copies.
        look_closer: (fingerprint id, ids paired with it) -> missing pairs; called once per kept fingerprint. Only pairs
            with a kept image decide, so most pairs of a cluster are never needed.
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
    for candidate in sorted(candidates, key=lambda candidate: candidate.preference):
        twin = seen.setdefault(candidate.fingerprint_id, candidate)
        if candidate.kept_by_person:
            keep(candidate)
            continue
        if twin is not candidate:
            # If the twin is a near copy itself, this image copies the image kept for both.
            copies[candidate.member_id] = copies.get(twin.member_id, Copy(twin, 0.0, exact=True))
            continue
        near_originals = [
            (difference, kept[other]) for difference, other in neighbours[candidate.fingerprint_id] if other in kept
        ]
        if near_originals:
            difference, original = min(near_originals, key=lambda pair: (pair[0], pair[1].preference))
            copies[candidate.member_id] = Copy(original, difference, exact=False)
        else:
            keep(candidate)
    return copies


def copy_rulings(copy: Copy | None, config: DataConfig) -> Sequence[Ruling]:
    """Return the rulings of the two checks for copies on one image."""
    exact = near = None
    if copy is not None and copy.exact:
        exact = f"shows the same pixels as image {copy.kept.sha256[:12]}, which is kept"
    elif copy is not None:
        near = (
            f"differs by {copy.difference:.1f} grey levels from image {copy.kept.sha256[:12]}, which is kept; "
            f"less than near_duplicate_difference = {config.near_duplicate_difference:g}"
        )
        if copy.difference >= _UNSURE_FROM:
            near += "; unsure at such a difference: look at both, and accept this image if they differ"
    difference = copy.difference if copy is not None else None
    return (
        Ruling(EXACT, VERSION, float(exact is not None), exact),
        Ruling(NEAR, VERSION, difference, near),
    )


def near_parameters(config: DataConfig) -> str:
    """Return the digest of the settings for near duplicates."""
    return digest_of(("near_duplicate_difference",), config)
