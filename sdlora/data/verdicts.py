"""The ledger of cleaning in the database: what was measured of images, and what was decided of them."""

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
from sdlora.data.decoding.decode import current_decodings
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
    """What is recorded of one image: enough to decide without looking at it.

    Attributes:
        scores: by check name, of the checks' present versions.
        ruling_keys: (check, version, parameters) of the rulings that are written already.
        decoded_as: how the measured pixels came about; see `sdlora.data.decoding.decode.Decoded`.
        fingerprint_id: None where nothing was decoded, or an older version made it.
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
    """The verdict on one image: the first ruling that rejects it, or none."""

    rejected_by: str | None
    reason: str


def rules_digest(config: DataConfig) -> str:
    """Digest of all checks and the settings that decide: a verdict under other rules is no verdict."""
    pixel_rules: dict[str, object] = {f"{check.name} {check.version}": check.parameters(config) for check in CHECKS}
    record_rules = {f"{check.name} {check.version}": check.parameters(config) for check in RECORD_CHECKS}
    other_rules = {f"copies {VERSION}": near_parameters(config), "pixels": current_decodings(config.background)}
    return parameters_digest(pixel_rules | record_rules | other_rules)


def undecided(session: Session, rules: str) -> Ids:
    """Ids of the images that have no verdict under these rules, in the order they were collected."""
    rows = session.execute(_undecided(rules).order_by(ImageTable.id).execution_options(yield_per=10_000))
    return np.fromiter((image_id for (image_id,) in rows), np.int64)


def count_undecided(session: Session, rules: str) -> int:
    """How many images have no verdict under these rules."""
    return session.execute(select(func.count()).select_from(_undecided(rules).subquery())).scalar_one()


def image_states(session: Session, image_ids: Sequence[int]) -> list[ImageState]:
    """What is recorded of these images (at most a chunk of them)."""
    current_versions = {check.name: check.version for check in CHECKS}
    scores: defaultdict[int, dict[str, float]] = defaultdict(dict)
    ruling_keys: defaultdict[int, set[tuple[str, int, str]]] = defaultdict(set)
    table = CheckTable
    of_images = select(table.image_id, table.name, table.version, table.parameters, table.score)
    # On the connection: these are a dozen rows an image, and the session would look at each of them.
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
    """The checks on single images under some settings, whose digests are taken once for all images."""

    def __init__(self, config: DataConfig) -> None:
        self._config = config
        self._parameters = [(check, check.parameters(config)) for check in CHECKS]

    def rulings(self, scores: Mapping[str, float], problem: str | None) -> list[Ruling]:
        """What they say of an image, from its scores; one without a score says nothing."""
        rulings = []
        for check, parameters in self._parameters:
            score = scores.get(check.name)
            if score is not None:
                reason = check.rejects(score, self._config)
                if reason and check.appends_problem:
                    reason = f"{reason}: {problem}"
                rulings.append(Ruling(check.name, check.version, parameters, score, reason))
        return rulings


def needs_measuring(state: ImageState, config: DataConfig) -> bool:
    """Whether a score is missing that no earlier rejection makes needless, or was taken of other pixels."""
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
    """Let the first ruling that rejects decide; without one the image is accepted."""
    for ruling in rulings:
        if ruling.reason:
            return ImageVerdict(ruling.check, ruling.reason)
    return ImageVerdict(None, f"passed all {len(CHECKS) + len(RECORD_CHECKS) + 2} checks")


def verdict_by(override: Override) -> ImageVerdict:
    """The verdict on an image of which a person has decided; it wins over every check."""
    rejected_by = {"accepted": None, "rejected": PERSON, "purged": PURGED}[override.verdict]
    return ImageVerdict(rejected_by, override.reason)


def record_measurements(
    session: Session, measured: Mapping[int, ImageScores], fingerprint_ids: Mapping[str, int], config: DataConfig
) -> None:
    """Record facts and scores by image id; the verdict on the image itself comes later, with all others in view."""
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
            image_id: judge.rulings(image_scores.scores, image_scores.problem)
            for image_id, image_scores in measured.items()
        },
    )


def record_rulings(session: Session, rulings: Mapping[int, Sequence[Ruling]]) -> None:
    """Write rulings by image id; one under the same check, version and parameters is replaced."""
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
    """Write verdicts by image id, and under which rules they were found; None leaves those as they are."""
    if not verdicts:
        return
    rows = [
        {
            "image": image_id,
            "verdict": "rejected" if verdict.rejected_by else "accepted",
            "rejected_by": verdict.rejected_by,
            "reason": verdict.reason,
        }
        | ({"rules": rules} if rules else {})
        for image_id, verdict in verdicts.items()
    ]
    _update_images(session, rows)


def _update_images(session: Session, rows: Sequence[Mapping[str, object]]) -> None:
    """Write columns of images; `image` in each row is the id of one, the other names are those of the columns."""
    table = cast(Table, ImageTable.__table__)
    values: dict[str, BindParameter[object]] = {name: bindparam(name) for name in rows[0] if name != "image"}
    execute_many(session, update(table).where(table.c.id == bindparam("image")).values(values), rows)


def forget_scores(session: Session, image_ids: Sequence[int]) -> None:
    """Remove what is recorded of pixels that are no longer what the image shows (of at most a chunk of images)."""
    if image_ids:
        of_pixels = CheckTable.name.in_([check.name for check in CHECKS])
        session.execute(delete(CheckTable).where(CheckTable.image_id.in_(image_ids), of_pixels))


def forget_decisions(session: Session, image_ids: Sequence[int]) -> None:
    """Let the next cleaning decide these images again (at most a chunk of them)."""
    session.execute(update(ImageTable).where(ImageTable.id.in_(image_ids)).values(rules=None))


def _undecided(rules: str) -> Select[tuple[int]]:
    # Not `!=`: each of these three terms can be answered from the index alone.
    other_rules = or_(ImageTable.rules.is_(None), ImageTable.rules < rules, ImageTable.rules > rules)
    # Of a purged image there is nothing left to look at, and nothing to decide.
    return select(ImageTable.id).where(other_rules, ImageTable.rejected_by.is_distinct_from(PURGED))
