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
from sdlora.data.recording import record_decisions, record_rulings, record_verdicts
from sdlora.data.split import LEAK
from sdlora.data.verdicts import (
    ImageState,
    ImageVerdict,
    Judge,
    image_states,
    needs_measuring,
    rules_digest,
    verdict_by,
    verdict_of,
)
from sdlora.store import curation
from sdlora.store.bulk import chunks
from sdlora.store.dataset import Dataset
from sdlora.store.overrides import Override, overrides_of
from sdlora.store.queries import find_image, find_member
from sdlora.store.records import ImageRecord
from sdlora.store.tables.datasets import MemberTable
from sdlora.store.tables.images import DecodingTable, ImageTable


def decide_images(session: Session, dataset_id: int, member_ids: Sequence[int], rules: str, config: DataConfig) -> None:
    """Decide these members (at most a chunk of them), and decide again every look-alike whose verdict changes.

    Each group of look-alikes in the dataset is decided as a whole, because the image it keeps depends on all its
    members. The outcome therefore does not depend on the order of images or the size of chunks. An image that was
    removed from the dataset gets no verdict, and is no reason to reject another one.

    Args:
        session: must hold the write lock, so that no group changes meanwhile.
        rules: `rules_digest(config)`, recorded with the verdicts.
    """
    states = image_states(session, member_ids, config.background)
    present = [state for state in states if not state.is_removed]
    judge = Judge(config)
    rulings_by_member = _single_image_rulings(session, present, judge, config)
    overrides = overrides_of(session, member_ids)
    verdicts = {
        state.member_id: _with_override(verdict_of(rulings_by_member[state.member_id]), state, overrides, judge)
        for state in present
    }
    record_rulings(session, {member_id: rulings_by_member.get(member_id, ()) for member_id in member_ids})
    record_decisions(session, states, verdicts, rules)
    _decide_copies(session, dataset_id, states, config)


def undo_decision(dataset: Dataset, sha256: str, who: str, config: DataConfig) -> ImageRecord:
    """Withdraw a person's verdict on an image; return the image with its new verdict.

    The checks decide the image and its look-alikes immediately, and no file is opened. The verdict is None until the
    next cleaning if scores are missing, or if the other images were decided under other settings.

    Args:
        sha256: digest of the image, or its first digits.
        who: the person, as recorded in the history.
        config: settings under which the images were cleaned.

    Raises:
        DataError: there is no such image in the dataset, no person has decided it, or it was purged.
    """
    rules = rules_digest(config)
    with dataset.store.write() as session:
        full_sha256 = curation.undo_decision(session, dataset.id, sha256, who)
        member_id = find_member(session, dataset.id, full_sha256)
        if _can_decide_now(session, dataset.id, member_id, rules, config):
            decide_images(session, dataset.id, [member_id], rules, config)
        session.expire_all()
        return find_image(session, dataset.id, full_sha256)


def _single_image_rulings(
    session: Session, states: Sequence[ImageState], judge: Judge, config: DataConfig
) -> dict[int, list[Ruling]]:
    """Return the rulings of all checks on single images by member id, checks on pixels first."""
    rulings_by_member = {
        state.member_id: judge.rulings(state.scores, state.problem, state.decoded_as) for state in states
    }
    for check in RECORD_CHECKS:
        for member_id, ruling in check.rulings(session, list(rulings_by_member), config).items():
            rulings_by_member[member_id].append(ruling)
    return rulings_by_member


def _with_override(
    verdict: ImageVerdict, state: ImageState, overrides: Mapping[int, Override], judge: Judge
) -> ImageVerdict:
    override = overrides.get(state.member_id)
    if override is None:
        return verdict
    if override.verdict == "accepted" and not judge.has_pixels(state):
        # Without pixels an image cannot be trained on, even if a person accepts it.
        return ImageVerdict(verdict.rejected_by, f"{verdict.reason} ({override.reason})")
    return verdict_by(override)


def _decide_copies(session: Session, dataset_id: int, states: Sequence[ImageState], config: DataConfig) -> None:
    """Find the copies in the groups of these images, and record the changed verdicts."""
    threshold = config.near_duplicate_difference
    own_fingerprint_ids = {state.fingerprint_id for state in states if state.fingerprint_id is not None}
    # A chain of pairs may run through images of other datasets. Only members of this dataset are candidates.
    fingerprint_ids, pairs = group_around(session, own_fingerprint_ids, threshold)
    candidates, current_verdicts = _candidates(session, dataset_id, sorted(fingerprint_ids))
    skipped = SkippedPairs(session, pairs, {candidate.fingerprint_id for candidate in candidates})
    copies = find_copies(candidates, pairs, threshold, skipped.pairs_with)
    rulings_to_record, changed_verdicts = {}, {}
    for candidate in candidates:
        member_id = candidate.member_id
        member_rulings = copy_rulings(copies.get(member_id), config)
        old_verdict = current_verdicts[member_id]
        new_verdict = _copy_verdict(member_rulings, copies.get(member_id))
        # Split leaks are decided again by the next snapshot only.
        keeps_verdict = candidate.kept_by_person or (
            new_verdict.rejected_by is None and old_verdict.rejected_by == LEAK
        )
        if not keeps_verdict and new_verdict != old_verdict:
            changed_verdicts[member_id] = new_verdict
            rulings_to_record[member_id] = member_rulings
    record_rulings(session, rulings_to_record, (EXACT, NEAR))
    record_verdicts(session, changed_verdicts)


def _copy_verdict(rulings: Sequence[Ruling], copy: Copy | None) -> ImageVerdict:
    verdict = verdict_of(rulings)
    return replace(verdict, copy_of_id=copy.kept.member_id) if copy is not None else verdict


def _candidates(
    session: Session, dataset_id: int, fingerprint_ids: Sequence[int]
) -> tuple[list[Candidate], dict[int, ImageVerdict]]:
    """Return members with these fingerprints that passed all single-image checks, and their current verdicts."""
    candidates: list[Candidate] = []
    current_verdicts: dict[int, ImageVerdict] = {}
    passed = or_(MemberTable.verdict == "accepted", MemberTable.rejected_by.in_((EXACT, NEAR, LEAK)))
    for chunk in chunks(fingerprint_ids):
        rows = session.execute(
            select(
                MemberTable.id,
                ImageTable.sha256,
                DecodingTable.fingerprint_id,
                DecodingTable.width * DecodingTable.height,
                DecodingTable.format,
                ImageTable.byte_size,
                MemberTable.split.is_not(None),
                MemberTable.rejected_by,
                MemberTable.reason,
                MemberTable.copy_of_id,
            )
            .join(ImageTable, ImageTable.id == DecodingTable.image_id)
            .join(MemberTable, (MemberTable.image_id == ImageTable.id) & (MemberTable.decoding_id == DecodingTable.id))
            .where(DecodingTable.fingerprint_id.in_(chunk), MemberTable.dataset_id == dataset_id)
            .where(passed, MemberTable.removed_at.is_(None))
        ).all()
        overrides: dict[int, Override] = {}
        for member_ids in chunks([row[0] for row in rows]):
            overrides.update(overrides_of(session, member_ids))
        for member_id, sha256, fingerprint_id, pixels, image_format, byte_size, has_side, *current in rows:
            kept_by_person = member_id in overrides and overrides[member_id].verdict == "accepted"
            candidates.append(
                Candidate(
                    member_id, sha256, fingerprint_id, pixels, image_format or "", byte_size, kept_by_person, has_side
                )
            )
            current_verdicts[member_id] = ImageVerdict(*current)
    return candidates, current_verdicts


def _can_decide_now(session: Session, dataset_id: int, member_id: int, rules: str, config: DataConfig) -> bool:
    """Return whether cleaning with these settings would decide the image without decoding it."""
    decided = select(MemberTable.id).where(MemberTable.dataset_id == dataset_id, MemberTable.rules == rules)
    if session.scalars(decided.limit(1)).first() is None:
        return False  # a verdict under rules that no other image has would mislead
    (state,) = image_states(session, [member_id], config.background)
    if needs_measuring(state, config):
        return False
    # An image without pixels gets no score from the model, and is rejected anyway.
    needs_model = bool(config.unsafe_model) and state.fingerprint_id is not None
    return not needs_model or bool(UNSAFE.judge(session, [member_id], config))
