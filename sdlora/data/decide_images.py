"""Verdicts on a handful of images and on the groups of look-alikes they belong to, from what is recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from sdlora.data.checks import RECORD_CHECKS, Ruling
from sdlora.data.checks.unsafe import UNSAFE
from sdlora.data.config import DataConfig
from sdlora.data.duplicates.clusters import SkippedPairs
from sdlora.data.duplicates.groups import EXACT, NEAR, Candidate, find_copies, rulings
from sdlora.data.duplicates.pairs import group_around
from sdlora.data.split import LEAK
from sdlora.data.verdicts import (
    ImageVerdict,
    Judge,
    Known,
    known_of,
    needs_measuring,
    record_rulings,
    record_verdicts,
    rules_digest,
    verdict_by,
    verdict_of,
)
from sdlora.store import curation
from sdlora.store.image_store import ImageStore
from sdlora.store.intake import chunks
from sdlora.store.intake import image_ids as ids_of
from sdlora.store.overrides import Override, overrides_of
from sdlora.store.queries import find_image
from sdlora.store.records import ImageRecord
from sdlora.store.tables import ImageTable


def decide_images(session: Session, image_ids: Sequence[int], rules: str, config: DataConfig) -> None:
    """Give a verdict to each of these images (at most a chunk of them), and a new one to others that it concerns.

    Which of a group of look-alikes is kept depends on all of the group, so all of it is looked at again. The outcome
    therefore does not depend on the order or the portions in which images are decided.

    Args:
        session: holds the write lock, so that no group changes meanwhile.
        rules: digest of the rules that `config` makes, recorded with the verdicts.
    """
    known = known_of(session, image_ids)
    single = _judge_alone(session, known, config)
    overrides = overrides_of(session, image_ids)
    verdicts = {one.image_id: _with_override(verdict_of(single[one.image_id]), one, overrides) for one in known}
    record_rulings(session, {one.image_id: _unwritten(single[one.image_id], one) for one in known})
    record_verdicts(session, verdicts, rules)
    _decide_copies(session, known, config)


def undo_decision(store: ImageStore, sha256: str, who: str, config: DataConfig) -> ImageRecord:
    """Take a person's verdict on an image back; returns the image with the verdict it has now.

    The checks decide at once, over it and its look-alikes, and no file is opened. Where they cannot, because scores
    are missing or other images were judged under other settings, the verdict is None until the next cleaning.

    Args:
        sha256: the first digits suffice.
        config: the settings that images are cleaned under.

    Raises:
        DataError: no such image, nobody has decided of it, or it was purged.
    """
    rules = rules_digest(config)
    with store.write() as session:
        full = curation.undo_decision(session, sha256, who)
        image_id = ids_of(session, [full])[full]
        if _suffices(session, image_id, rules, config):
            decide_images(session, [image_id], rules, config)
        session.expire_all()
        return find_image(session, full)


def _judge_alone(session: Session, known: Sequence[Known], config: DataConfig) -> dict[int, list[Ruling]]:
    """What the checks on single images say, those of the pixels first."""
    judge = Judge(config)
    single = {one.image_id: judge.rulings(one.scores, one.problem) for one in known}
    for check in RECORD_CHECKS:
        for image_id, ruling in check.rulings(session, list(single), config).items():
            single[image_id].append(ruling)
    return single


def _with_override(verdict: ImageVerdict, known: Known, overrides: Mapping[int, Override]) -> ImageVerdict:
    override = overrides.get(known.image_id)
    if override is None:
        return verdict
    if override.verdict == "accepted" and known.fingerprint_id is None:
        # There are no pixels to train on, whatever a person says.
        return ImageVerdict(verdict.rejected_by, f"{verdict.reason} ({override.reason})")
    return verdict_by(override)


def _unwritten(listed: Sequence[Ruling], known: Known) -> list[Ruling]:
    """Rulings that are not in the ledger yet. One on records can change under the same key, so it is written anew."""
    on_records = {check.name for check in RECORD_CHECKS}
    return [one for one in listed if one.check in on_records or one.key not in known.ruled]


def _decide_copies(session: Session, known: Sequence[Known], config: DataConfig) -> None:
    """Look for the best of each group that has one of these images, and write what that changes."""
    threshold = config.near_duplicate_difference
    own = {one.fingerprint_id for one in known if one.fingerprint_id is not None}
    fingerprint_ids, pairs = group_around(session, own, threshold)
    candidates, standing = _candidates(session, sorted(fingerprint_ids))
    copies = find_copies(candidates, pairs, threshold, SkippedPairs(session, pairs).pairs_with)
    in_hand = {one.image_id for one in known}
    written, changed = {}, {}
    for candidate in candidates:
        image_id = candidate.image_id
        listed = rulings(copies.get(image_id), config)
        before = standing[image_id]
        now = verdict_of(listed)
        # An image that only the split turned down stays so until the next snapshot, which alone can tell.
        keeps_standing = candidate.kept_by_person or (now.rejected_by is None and before.rejected_by == LEAK)
        if not keeps_standing and now != before:
            changed[image_id] = now
        if image_id in in_hand or image_id in changed:
            written[image_id] = listed
    record_rulings(session, written)
    record_verdicts(session, changed)


def _candidates(session: Session, fingerprint_ids: Sequence[int]) -> tuple[list[Candidate], dict[int, ImageVerdict]]:
    """Images with these fingerprints that have passed every check on single images, and what is decided of them now."""
    found: list[Candidate] = []
    standing: dict[int, ImageVerdict] = {}
    passed = or_(ImageTable.verdict == "accepted", ImageTable.rejected_by.in_((EXACT, NEAR, LEAK)))
    for chunk in chunks(fingerprint_ids):
        rows = session.execute(
            select(
                ImageTable.id,
                ImageTable.sha256,
                ImageTable.fingerprint_id,
                ImageTable.width * ImageTable.height,
                ImageTable.rejected_by,
                ImageTable.reason,
            )
            .where(ImageTable.fingerprint_id.in_(chunk))
            .where(passed)
        ).all()
        overrides: dict[int, Override] = {}
        for some in chunks([row[0] for row in rows]):
            overrides.update(overrides_of(session, some))
        for image_id, sha256, fingerprint_id, pixels, rejected_by, reason in rows:
            kept = image_id in overrides and overrides[image_id].verdict == "accepted"
            found.append(Candidate(image_id, sha256, fingerprint_id, pixels, kept_by_person=kept))
            standing[image_id] = ImageVerdict(rejected_by, reason)
    return found, standing


def _suffices(session: Session, image_id: int, rules: str, config: DataConfig) -> bool:
    """Whether cleaning with these settings would decide the image unseen."""
    if session.scalars(select(ImageTable.id).where(ImageTable.rules == rules).limit(1)).first() is None:
        return False  # a verdict under rules that nobody else is judged by would mislead
    (known,) = known_of(session, [image_id])
    if needs_measuring(known, config):
        return False
    # Without pixels a model has nothing to say, and the image is turned down anyway.
    needs_model = bool(config.unsafe_model) and known.fingerprint_id is not None
    return not needs_model or bool(UNSAFE.judge(session, [image_id], config))
