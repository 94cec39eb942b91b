"""Scores, rulings and verdicts of cleaning, as recorded in the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from sqlalchemy import BindParameter, Select, Table, bindparam, delete, func, or_, select, update
from sqlalchemy.orm import Session

from sdlora.data.checks import CHECKS, RECORD_CHECKS, Ruling
from sdlora.data.checks.base import parameters_digest
from sdlora.data.config import DataConfig
from sdlora.data.decoding.decode import current_decodings, is_hidden
from sdlora.data.duplicates.fingerprint import VERSION
from sdlora.data.duplicates.groups import near_parameters
from sdlora.data.measuring.measure import ImageScores
from sdlora.store.bulk import execute_many
from sdlora.store.intake import insert_or_update
from sdlora.store.overrides import PERSON, PURGED, Override
from sdlora.store.tables import CheckTable, FingerprintTable, ImageTable

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImageState:
    """Recorded state of one image, enough to decide it without decoding.

    Attributes:
        scores: by check name, for the current version of each check.
        ruling_keys: (check, version, parameters) of each recorded ruling.
        decoded_as: decoding of the measured pixels; see `sdlora.data.decoding.decode.Decoded`.
        fingerprint_id: None if nothing was decoded, or an older version computed the fingerprint.
    """

    image_id: int
    sha256: str
    byte_size: int
    problem: str | None
    scores: Mapping[str, float]
    ruling_keys: Collection[tuple[str, int, str]]
    decoded_as: str | None
    fingerprint_id: int | None


@dataclass(frozen=True)
class ImageVerdict:
    """Verdict on one image.

    Attributes:
        rejected_by: name of the first check that rejects the image, or None.
        copy_of_id: id of the image that is kept, for an image rejected as its copy.
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


def undecided(session: Session, rules: str) -> Ids:
    """Return the ids of images without a verdict under these rules, in the order of collection."""
    rows = session.execute(_undecided(rules).order_by(ImageTable.id).execution_options(yield_per=10_000))
    return np.fromiter((image_id for (image_id,) in rows), np.int64)


def count_undecided(session: Session, rules: str) -> int:
    """Count the images without a verdict under these rules."""
    return session.execute(select(func.count()).select_from(_undecided(rules).subquery())).scalar_one()


def image_states(session: Session, image_ids: Sequence[int]) -> list[ImageState]:
    """Read the recorded state of these images (at most a chunk of them), ordered by id."""
    current_versions = {check.name: check.version for check in CHECKS}
    scores: defaultdict[int, dict[str, float]] = defaultdict(dict)
    ruling_keys: defaultdict[int, set[tuple[str, int, str]]] = defaultdict(set)
    table = CheckTable
    of_images = select(table.image_id, table.name, table.version, table.parameters, table.score)
    # On the connection, because the session would process each of a dozen rows per image.
    for image_id, name, version, parameters, score in session.connection().execute(
        of_images.where(table.image_id.in_(image_ids))
    ):
        ruling_keys[image_id].add((name, version, parameters))
        if score is not None and current_versions.get(name) == version:
            scores[image_id][name] = score
    images = session.execute(
        select(
            ImageTable.id,
            ImageTable.sha256,
            ImageTable.byte_size,
            ImageTable.problem,
            ImageTable.decoded_as,
            FingerprintTable.id,
        )
        .outerjoin(
            FingerprintTable,
            (FingerprintTable.id == ImageTable.fingerprint_id) & (FingerprintTable.version == VERSION),
        )
        .where(ImageTable.id.in_(image_ids))
        .order_by(ImageTable.id)
    )
    return [
        ImageState(
            image_id,
            sha256,
            size,
            problem,
            scores.get(image_id, {}),
            ruling_keys.get(image_id, ()),
            decoded_as,
            fingerprint_id,
        )
        for image_id, sha256, size, problem, decoded_as, fingerprint_id in images
    ]


class Judge:
    """Checks on pixels under one set of settings. Digests of settings are computed once for all images."""

    def __init__(self, config: DataConfig) -> None:
        self._config = config
        self._parameters = [(check, check.parameters(config)) for check in CHECKS]

    def rulings(self, scores: Mapping[str, float], problem: str | None, decoded_as: str | None) -> list[Ruling]:
        """Return the rulings on an image. A check without a score gives no ruling."""
        rulings = []
        for check, parameters in self._parameters:
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
                rulings.append(Ruling(check.name, check.version, parameters, score, reason))
        return rulings


def needs_measuring(state: ImageState, config: DataConfig) -> bool:
    """Return whether a needed score is missing or was measured on other pixels.

    Scores after a rejection that ends decoding are not needed.
    """
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


def record_measurements(
    session: Session, measured: Mapping[int, ImageScores], fingerprint_ids: Mapping[str, int], config: DataConfig
) -> None:
    """Record facts and scores by image id. Verdicts follow later, once all images are measured."""
    facts = [
        {
            "image": image_id,
            "format": image_scores.header.format or None if image_scores.header else None,
            "width": image_scores.header.width or None if image_scores.header else None,
            "height": image_scores.header.height or None if image_scores.header else None,
            "problem": image_scores.problem,
            "decoded_as": image_scores.decoded_as,
            "fingerprint_id": fingerprint_ids[image_scores.pixels_sha256] if image_scores.pixels_sha256 else None,
        }
        for image_id, image_scores in measured.items()
    ]
    _update_images(session, facts)
    judge = Judge(config)
    record_rulings(
        session,
        {
            image_id: judge.rulings(image_scores.scores, image_scores.problem, image_scores.decoded_as)
            for image_id, image_scores in measured.items()
        },
    )


def record_rulings(session: Session, rulings: Mapping[int, Sequence[Ruling]]) -> None:
    """Write rulings by image id. A ruling with the same check, version and parameters is replaced."""
    rows = [
        {
            "image_id": image_id,
            "name": ruling.check,
            "version": ruling.version,
            "parameters": ruling.parameters,
            "score": ruling.score,
            "verdict": ruling.verdict,
            "reason": ruling.reason or "",
        }
        for image_id, image_rulings in rulings.items()
        for ruling in image_rulings
    ]
    insert_or_update(session, CheckTable, rows, keys=("image_id", "name", "version", "parameters"))


def record_verdicts(session: Session, verdicts: Mapping[int, ImageVerdict], rules: str | None = None) -> None:
    """Write verdicts by image id and the digest of their rules; None leaves the recorded digest unchanged."""
    if not verdicts:
        return
    rows = [
        {
            "image": image_id,
            "verdict": "rejected" if verdict.rejected_by else "accepted",
            "rejected_by": verdict.rejected_by,
            "reason": verdict.reason,
            "copy_of_id": verdict.copy_of_id,
        }
        | ({"rules": rules} if rules else {})
        for image_id, verdict in verdicts.items()
    ]
    _update_images(session, rows)


def _update_images(session: Session, rows: Sequence[Mapping[str, object]]) -> None:
    """Update images. Each row holds an image id under `image` and new values by column name."""
    table = cast(Table, ImageTable.__table__)
    values: dict[str, BindParameter[object]] = {name: bindparam(name) for name in rows[0] if name != "image"}
    execute_many(session, update(table).where(table.c.id == bindparam("image")).values(values), rows)


def forget_scores(session: Session, image_ids: Sequence[int]) -> None:
    """Delete the scores measured on outdated pixels (of at most a chunk of images)."""
    if image_ids:
        of_pixels = CheckTable.name.in_([check.name for check in CHECKS])
        session.execute(delete(CheckTable).where(CheckTable.image_id.in_(image_ids), of_pixels))


def forget_decisions(session: Session, image_ids: Sequence[int]) -> None:
    """Mark these images as undecided (at most a chunk of them), so that the next cleaning decides them."""
    session.execute(update(ImageTable).where(ImageTable.id.in_(image_ids)).values(rules=None))


def _undecided(rules: str) -> Select[tuple[int]]:
    # Not `!=`: the index can answer each of these three terms.
    other_rules = or_(ImageTable.rules.is_(None), ImageTable.rules < rules, ImageTable.rules > rules)
    # A purged image has no bytes left and is never decided again.
    return select(ImageTable.id).where(other_rules, ImageTable.rejected_by.is_distinct_from(PURGED))
