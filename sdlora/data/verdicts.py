"""Scores, rulings and verdicts of cleaning, as recorded in the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from sdlora.data.checks import CHECKS, RECORD_CHECKS, Ruling
from sdlora.data.checks.base import parameters_digest
from sdlora.data.config import DataConfig
from sdlora.data.decoding.decode import current_decodings, is_hidden
from sdlora.data.duplicates.fingerprint import VERSION
from sdlora.data.duplicates.groups import near_parameters
from sdlora.store.overrides import PERSON, PURGED, Override
from sdlora.store.tables.datasets import MemberTable
from sdlora.store.tables.images import DecodingTable, FingerprintTable, ImageTable, ScoreTable

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImageState:
    """Recorded state of one image of a dataset, enough to decide it without decoding.

    Attributes:
        decoding_id: decoding on the background of the settings; None if the image was not measured on it.
        scores: by check name, for the current version of each check.
        decoded_as: decoding of the measured pixels; see `sdlora.data.decoding.decode.Decoded`.
        fingerprint_id: None if nothing was decoded, or an older version computed the fingerprint.
        is_removed: whether the image was removed from the dataset. It gets no verdict.
    """

    member_id: int
    image_id: int
    sha256: str
    byte_size: int
    decoding_id: int | None
    problem: str | None
    scores: Mapping[str, float]
    decoded_as: str | None
    fingerprint_id: int | None
    is_removed: bool = False


@dataclass(frozen=True)
class ImageVerdict:
    """Verdict on one image of a dataset.

    Attributes:
        rejected_by: name of the first check that rejects the image, or None.
        copy_of_id: id of the member that is kept, for an image rejected as its copy.
    """

    rejected_by: str | None
    reason: str
    copy_of_id: int | None = None


def rules_digest(config: DataConfig) -> str:
    """Digest of all checks and their settings. A verdict under another digest counts as missing."""
    pixel_rules: dict[str, object] = {f"{check.name} {check.version}": check.parameters(config) for check in CHECKS}
    record_rules = {f"{check.name} {check.version}": check.parameters(config) for check in RECORD_CHECKS}
    other_rules = {f"copies {VERSION}": near_parameters(config), "pixels": current_decodings(config.background)}
    return parameters_digest(pixel_rules | record_rules | other_rules)


def undecided(session: Session, dataset_id: int, rules: str) -> Ids:
    """Return the ids of members without a verdict under these rules, in the order in which they joined.

    Images that were removed since the last cleaning are among them, because their copies have to be decided again.
    """
    statement = _undecided(dataset_id, rules).order_by(MemberTable.id)
    rows = session.execute(statement.execution_options(yield_per=10_000))
    return np.fromiter((member_id for (member_id,) in rows), np.int64)


def count_undecided(session: Session, dataset_id: int, rules: str) -> int:
    """Count the members without a verdict under these rules."""
    return session.execute(select(func.count()).select_from(_undecided(dataset_id, rules).subquery())).scalar_one()


def image_states(session: Session, member_ids: Sequence[int], background: str) -> list[ImageState]:
    """Read the recorded state of these members (at most a chunk of them), ordered by id.

    Args:
        background: background of transparent parts, which selects the decoding.
    """
    # An image has two valid decodings if a limit on pixels prevented the one without a background.
    is_valid = DecodingTable.background.in_(("", background))
    is_current = (FingerprintTable.id == DecodingTable.fingerprint_id) & (FingerprintTable.version == VERSION)
    rows = session.execute(
        select(
            MemberTable.id,
            ImageTable.id,
            ImageTable.sha256,
            ImageTable.byte_size,
            DecodingTable.id,
            DecodingTable.problem,
            DecodingTable.decoded_as,
            FingerprintTable.id,
            MemberTable.removed_at,
        )
        .join(ImageTable, ImageTable.id == MemberTable.image_id)
        .outerjoin(DecodingTable, (DecodingTable.image_id == ImageTable.id) & is_valid)
        .outerjoin(FingerprintTable, is_current)
        .where(MemberTable.id.in_(member_ids))
        .order_by(MemberTable.id, DecodingTable.background)
    )
    current = current_decodings(background)
    chosen: dict[int, Any] = {}
    for row in rows:  # of several decodings, the current one counts, and of these the one with a background
        if row[0] not in chosen or row[6] in current:
            chosen[row[0]] = row
    scores = _scores(session, [row[4] for row in chosen.values() if row[4] is not None])
    return [
        ImageState(
            member_id,
            image_id,
            sha256,
            size,
            decoding_id,
            problem,
            scores.get(decoding_id, {}),
            decoded_as,
            fingerprint_id,
            removed_at is not None,
        )
        for member_id, image_id, sha256, size, decoding_id, problem, decoded_as, fingerprint_id, removed_at in (
            chosen.values()
        )
    ]


def _scores(session: Session, decoding_ids: Sequence[int]) -> Mapping[int, Mapping[str, float]]:
    """Read the scores of the current version of each check on pixels, by decoding id."""
    current_versions = {check.name: check.version for check in CHECKS}
    scores: defaultdict[int, dict[str, float]] = defaultdict(dict)
    of_decodings = select(ScoreTable.decoding_id, ScoreTable.name, ScoreTable.version, ScoreTable.score).where(
        ScoreTable.decoding_id.in_(decoding_ids)
    )
    # On the connection, because the session would process each of a dozen rows per image.
    for decoding_id, name, version, score in session.connection().execute(of_decodings):
        if current_versions.get(name) == version:
            scores[decoding_id][name] = score
    return scores


class Judge:
    """Checks on pixels under one set of settings."""

    def __init__(self, config: DataConfig) -> None:
        self._config = config

    def has_pixels(self, state: ImageState) -> bool:
        """Return whether these settings allow the image to be decoded, and it can be."""
        rulings = self.rulings(state.scores, state.problem, state.decoded_as)
        ended = {check.name for check in CHECKS if check.ends_decoding}
        return state.fingerprint_id is not None and not any(r.reason for r in rulings if r.check in ended)

    def rulings(self, scores: Mapping[str, float], problem: str | None, decoded_as: str | None) -> list[Ruling]:
        """Return the rulings on an image. A check without a score gives no ruling."""
        rulings = []
        for check in CHECKS:
            score = scores.get(check.name)
            if score is not None:
                reason = check.rejects(score, self._config)
                if reason and check.appends_problem:
                    reason = f"{reason}: {problem}"
                if reason and check.depends_on_background and is_hidden(decoded_as):
                    reason = (
                        f"{reason}; its alpha channel holds a picture in about the colour of data.background = "
                        f"{self._config.background}; set data.background to another colour to show it"
                    )
                rulings.append(Ruling(check.name, check.version, score, reason))
        return rulings


def needs_measuring(state: ImageState, config: DataConfig) -> bool:
    """Return whether a needed score is missing or was measured on other pixels. Removed images need none.

    Scores after a rejection that ends decoding are not needed.
    """
    if state.is_removed:
        return False
    if state.decoded_as not in current_decodings(config.background):
        return True
    for check in CHECKS:
        score = state.scores.get(check.name)
        if score is None:
            return True
        if check.ends_decoding and check.rejects(score, config):
            return False
    return state.fingerprint_id is None


def verdict_of(rulings: Sequence[Ruling]) -> ImageVerdict:
    """Return the verdict of the first ruling that rejects; without one the image is accepted."""
    for ruling in rulings:
        if ruling.reason:
            return ImageVerdict(ruling.check, ruling.reason)
    return ImageVerdict(None, f"passed all {len(CHECKS) + len(RECORD_CHECKS) + 2} checks")


def verdict_by(override: Override) -> ImageVerdict:
    """Return a person's verdict, which takes precedence over every check."""
    rejected_by = {"accepted": None, "rejected": PERSON, "purged": PURGED}[override.verdict]
    return ImageVerdict(rejected_by, override.reason)


def _undecided(dataset_id: int, rules: str) -> Select[tuple[int]]:
    # Not `!=`: the index can answer each of these three terms.
    other_rules = or_(MemberTable.rules.is_(None), MemberTable.rules < rules, MemberTable.rules > rules)
    # A purged image has no bytes left and is never decided again.
    is_there = MemberTable.rejected_by.is_distinct_from(PURGED)
    return select(MemberTable.id).where(MemberTable.dataset_id == dataset_id, other_rules, is_there)
