"""Verdicts on images and their groups of look-alikes, decided from recorded scores without opening a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from sdlora.data.checks import RECORD_CHECKS, Ruling
from sdlora.data.checks.unsafe import UNSAFE
from sdlora.data.config import DataConfig
from sdlora.data.duplicates.clusters import SkippedPairs
from sdlora.data.duplicates.groups import EXACT, NEAR, Candidate, Copy, copy_rulings, find_copies
from sdlora.data.duplicates.pairs import group_around
from sdlora.data.split import LEAK
from sdlora.data.verdicts import (
    ImageState,
    ImageVerdict,
    Judge,
    image_states,
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
    """Decide these images (at most a chunk of them), and decide again every look-alike whose verdict changes.

    Each group of look-alikes is decided as a whole, because the image it keeps depends on all its members. The outcome
    therefore does not depend on the order of images or the size of chunks.

    Args:
        session: must hold the write lock, so that no group changes meanwhile.
        rules: `rules_digest(config)`, recorded with the verdicts.
    """
    states = image_states(session, image_ids)
    rulings_by_image = _single_image_rulings(session, states, config)
    overrides = overrides_of(session, image_ids)
    verdicts = {
        state.image_id: _with_override(verdict_of(rulings_by_image[state.image_id]), state, overrides)
        for state in states
    }
    record_rulings(session, {state.image_id: _unrecorded(rulings_by_image[state.image_id], state) for state in states})
    record_verdicts(session, verdicts, rules)
    _decide_copies(session, states, config)


def undo_decision(store: ImageStore, sha256: str, who: str, config: DataConfig) -> ImageRecord:
    """Withdraw a person's verdict on an image; return the image with its new verdict.

    The checks decide the image and its look-alikes immediately, and no file is opened. The verdict is None until the
    next cleaning if scores are missing, or if the other images were decided under other settings.

    Args:
        sha256: digest of the image, or its first digits.
        who: the person, as recorded in the history.
        config: settings under which the images were cleaned.

    Raises:
        DataError: there is no such image, no person has decided it, or it was purged.
    """
    rules = rules_digest(config)
    with store.write() as session:
        full_sha256 = curation.undo_decision(session, sha256, who)
        image_id = ids_of(session, [full_sha256])[full_sha256]
        if _can_decide_now(session, image_id, rules, config):
            decide_images(session, [image_id], rules, config)
        session.expire_all()
        return find_image(session, full_sha256)


def _single_image_rulings(
    session: Session, states: Sequence[ImageState], config: DataConfig
) -> dict[int, list[Ruling]]:
    """Return the rulings of all checks on single images by image id, checks on pixels first."""
    judge = Judge(config)
    rulings_by_image = {
        state.image_id: judge.rulings(state.scores, state.problem, state.decoded_as) for state in states
    }
    for check in RECORD_CHECKS:
        for image_id, ruling in check.rulings(session, list(rulings_by_image), config).items():
            rulings_by_image[image_id].append(ruling)
    return rulings_by_image


def _with_override(verdict: ImageVerdict, state: ImageState, overrides: Mapping[int, Override]) -> ImageVerdict:
    override = overrides.get(state.image_id)
    if override is None:
        return verdict
    if override.verdict == "accepted" and state.fingerprint_id is None:
        # Without pixels an image cannot be trained on, even if a person accepts it.
        return ImageVerdict(verdict.rejected_by, f"{verdict.reason} ({override.reason})")
    return verdict_by(override)


def _unrecorded(image_rulings: Sequence[Ruling], state: ImageState) -> list[Ruling]:
    """Return the rulings to be written. Rulings on records are always written: they can change under the same key."""
    on_records = {check.name for check in RECORD_CHECKS}
    return [ruling for ruling in image_rulings if ruling.check in on_records or ruling.key not in state.ruling_keys]


def _decide_copies(session: Session, states: Sequence[ImageState], config: DataConfig) -> None:
    """Find the copies in the groups of these images, and record the changed verdicts."""
    threshold = config.near_duplicate_difference
    own_fingerprint_ids = {state.fingerprint_id for state in states if state.fingerprint_id is not None}
    fingerprint_ids, pairs = group_around(session, own_fingerprint_ids, threshold)
    candidates, current_verdicts = _candidates(session, sorted(fingerprint_ids))
    copies = find_copies(candidates, pairs, threshold, SkippedPairs(session, pairs).pairs_with)
    given_ids = {state.image_id for state in states}
    rulings_to_record, changed_verdicts = {}, {}
    for candidate in candidates:
        image_id = candidate.image_id
        image_rulings = copy_rulings(copies.get(image_id), config)
        old_verdict = current_verdicts[image_id]
        new_verdict = _copy_verdict(image_rulings, copies.get(image_id))
        # Split leaks are decided again by the next snapshot only.
        keeps_verdict = candidate.kept_by_person or (
            new_verdict.rejected_by is None and old_verdict.rejected_by == LEAK
        )
        if not keeps_verdict and new_verdict != old_verdict:
            changed_verdicts[image_id] = new_verdict
        if image_id in given_ids or image_id in changed_verdicts:
            rulings_to_record[image_id] = image_rulings
    record_rulings(session, rulings_to_record)
    record_verdicts(session, changed_verdicts)


def _copy_verdict(rulings: Sequence[Ruling], copy: Copy | None) -> ImageVerdict:
    verdict = verdict_of(rulings)
    return replace(verdict, copy_of_id=copy.kept.image_id) if copy is not None else verdict


def _candidates(session: Session, fingerprint_ids: Sequence[int]) -> tuple[list[Candidate], dict[int, ImageVerdict]]:
    """Return images with these fingerprints that passed all single-image checks, and their current verdicts."""
    candidates: list[Candidate] = []
    current_verdicts: dict[int, ImageVerdict] = {}
    passed = or_(ImageTable.verdict == "accepted", ImageTable.rejected_by.in_((EXACT, NEAR, LEAK)))
    for chunk in chunks(fingerprint_ids):
        rows = session.execute(
            select(
                ImageTable.id,
                ImageTable.sha256,
                ImageTable.fingerprint_id,
                ImageTable.width * ImageTable.height,
                ImageTable.format,
                ImageTable.byte_size,
                ImageTable.split.is_not(None),
                ImageTable.rejected_by,
                ImageTable.reason,
                ImageTable.copy_of_id,
            )
            .where(ImageTable.fingerprint_id.in_(chunk))
            .where(passed)
        ).all()
        overrides: dict[int, Override] = {}
        for image_ids in chunks([row[0] for row in rows]):
            overrides.update(overrides_of(session, image_ids))
        for image_id, sha256, fingerprint_id, pixels, image_format, byte_size, has_side, *current in rows:
            kept_by_person = image_id in overrides and overrides[image_id].verdict == "accepted"
            candidates.append(
                Candidate(
                    image_id, sha256, fingerprint_id, pixels, image_format or "", byte_size, kept_by_person, has_side
                )
            )
            current_verdicts[image_id] = ImageVerdict(*current)
    return candidates, current_verdicts


def _can_decide_now(session: Session, image_id: int, rules: str, config: DataConfig) -> bool:
    """Return whether cleaning with these settings would decide the image without decoding it."""
    if session.scalars(select(ImageTable.id).where(ImageTable.rules == rules).limit(1)).first() is None:
        return False  # a verdict under rules that no other image has would mislead
    (state,) = image_states(session, [image_id])
    if needs_measuring(state, config):
        return False
    # An image without pixels gets no score from the model, and is rejected anyway.
    needs_model = bool(config.unsafe_model) and state.fingerprint_id is not None
    return not needs_model or bool(UNSAFE.judge(session, [image_id], config))
