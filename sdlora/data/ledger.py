"""The ledger of cleaning in the database: what was measured of images, and what was decided of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from sdlora.data.checks import CHECKS, Ruling
from sdlora.data.checks.base import parameters_digest
from sdlora.data.config import DataConfig
from sdlora.data.duplicates import EXACT, NEAR, Candidate, near_parameters
from sdlora.data.fingerprint import VERSION
from sdlora.data.measure import Measurement
from sdlora.data.split import LEAK
from sdlora.store.intake import chunks, insert_or_update
from sdlora.store.tables import CheckTable, FingerprintTable, ImageTable


@dataclass(frozen=True)
class Known:
    """What is recorded of one image: enough to decide without looking at it."""

    image_id: int
    sha256: str
    byte_size: int
    problem: str | None
    scores: Mapping[str, float]
    has_fingerprint: bool


def rules_digest(config: DataConfig) -> str:
    """Digest of all checks and the settings that decide: a verdict under other rules is no verdict."""
    rules: dict[str, object] = {f"{check.name} {check.version}": check.parameters(config) for check in CHECKS}
    return parameters_digest(rules | {f"copies {VERSION}": near_parameters(config)})


def undecided(session: Session, rules: str) -> list[int]:
    """Ids of the images that have no verdict under these rules, in the order they were collected."""
    statement = select(ImageTable.id).where(or_(ImageTable.rules.is_(None), ImageTable.rules != rules))
    return list(session.scalars(statement.order_by(ImageTable.id)))


def known_of(session: Session, image_ids: Sequence[int]) -> list[Known]:
    """What is recorded of these images (at most a chunk of them)."""
    current = {check.name: check.version for check in CHECKS}
    scores: dict[int, dict[str, float]] = {}
    rows = session.execute(
        select(CheckTable.image_id, CheckTable.name, CheckTable.version, CheckTable.score).where(
            CheckTable.image_id.in_(image_ids), CheckTable.score.is_not(None)
        )
    )
    for image_id, name, version, score in rows:
        if current.get(name) == version:
            scores.setdefault(image_id, {})[name] = score
    images = session.execute(
        select(ImageTable.id, ImageTable.sha256, ImageTable.byte_size, ImageTable.problem, FingerprintTable.version)
        .outerjoin(FingerprintTable, FingerprintTable.id == ImageTable.fingerprint_id)
        .where(ImageTable.id.in_(image_ids))
        .order_by(ImageTable.id)
    )
    return [
        Known(row.id, row.sha256, row.byte_size, row.problem, scores.get(row.id, {}), row.version == VERSION)
        for row in images
    ]


def judge(scores: Mapping[str, float], problem: str | None, config: DataConfig) -> list[Ruling]:
    """What the checks on single images say, from recorded scores; one without a score says nothing."""
    result = []
    for check in CHECKS:
        score = scores.get(check.name)
        if score is not None:
            reason = check.rejects(score, config)
            if reason and check.tells_problem:
                reason = f"{reason}: {problem}"
            result.append(Ruling(check.name, check.version, check.parameters(config), score, reason))
    return result


def needs_measuring(known: Known, config: DataConfig) -> bool:
    """Whether a score is missing that no earlier rejection makes needless."""
    for check in CHECKS:
        score = known.scores.get(check.name)
        if score is None:
            return True
        if check.ends and check.rejects(score, config):
            return False
    return not known.has_fingerprint


def record_measurements(
    session: Session, measured: Mapping[int, Measurement], fingerprint_ids: Mapping[str, int], config: DataConfig
) -> None:
    """Record facts and scores by image id; the verdict on the image itself comes later, with all others in view."""
    facts = [
        {
            "id": image_id,
            "format": one.header.format or None if one.header else None,
            "width": one.header.width or None if one.header else None,
            "height": one.header.height or None if one.header else None,
            "problem": one.problem,
            "fingerprint_id": fingerprint_ids[one.pixels_sha256] if one.pixels_sha256 else None,
        }
        for image_id, one in measured.items()
    ]
    session.execute(update(ImageTable), facts)
    record_rulings(session, {image_id: judge(one.scores, one.problem, config) for image_id, one in measured.items()})


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
        for image_id, listed in rulings.items()
        for ruling in listed
    ]
    insert_or_update(session, CheckTable, rows, keys=("image_id", "name", "version", "parameters"))


def record_verdicts(session: Session, rulings: Mapping[int, Sequence[Ruling]], rules: str) -> None:
    """Let the first ruling that rejects decide over each image; without one it is accepted."""
    rows = []
    for image_id, listed in rulings.items():
        decisive = next((ruling for ruling in listed if ruling.reason), None)
        rows.append(
            {
                "id": image_id,
                "verdict": decisive.verdict if decisive else "accepted",
                "rejected_by": decisive.check if decisive else None,
                "reason": decisive.reason if decisive else f"passed all {len(CHECKS) + 2} checks",
                "rules": rules,
            }
        )
    if rows:
        session.execute(update(ImageTable), rows)


def copy_candidates(session: Session, fingerprint_ids: Sequence[int]) -> list[Candidate]:
    """Images with these fingerprints that every check on single images has passed."""
    found: list[Candidate] = []
    passed = or_(ImageTable.verdict == "accepted", ImageTable.rejected_by.in_((EXACT, NEAR, LEAK)))
    for chunk in chunks(fingerprint_ids):
        rows = session.execute(
            select(ImageTable.id, ImageTable.sha256, ImageTable.fingerprint_id, ImageTable.width * ImageTable.height)
            .where(ImageTable.fingerprint_id.in_(chunk))
            .where(passed)
        )
        found += [Candidate(*row) for row in rows]
    return found
