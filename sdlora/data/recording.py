"""Writing of scores, rulings and verdicts into the database."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from sqlalchemy import BindParameter, Table, bindparam, delete, select, update
from sqlalchemy.orm import Session

from sdlora.data.checks import CHECKS, Ruling
from sdlora.data.decoding.decode import shown_background
from sdlora.data.measuring.measure import ImageScores
from sdlora.data.verdicts import ImageState, ImageVerdict
from sdlora.store.bulk import chunks, execute_many, insert_or_update
from sdlora.store.tables.datasets import MemberTable, RulingTable
from sdlora.store.tables.images import DecodingTable, ScoreTable


def record_measurements(
    session: Session, measured: Mapping[int, ImageScores], fingerprint_ids: Mapping[str, int]
) -> None:
    """Record decodings and scores by image id. Verdicts follow later, once all images are measured."""
    rows = [
        {
            "image_id": image_id,
            "background": shown_background(scores.decoded_as),
            "decoded_as": scores.decoded_as,
            "format": scores.header.format or None if scores.header else None,
            "width": scores.header.width or None if scores.header else None,
            "height": scores.header.height or None if scores.header else None,
            "problem": scores.problem,
            "fingerprint_id": fingerprint_ids[scores.pixels_sha256] if scores.pixels_sha256 else None,
        }
        for image_id, scores in measured.items()
    ]
    insert_or_update(session, DecodingTable, rows, keys=("image_id", "background"))
    decoding_ids = _decoding_ids(session, list(measured))
    versions = {check.name: check.version for check in CHECKS}
    score_rows: list[dict[str, Any]] = [
        {
            "decoding_id": decoding_ids[image_id, shown_background(scores.decoded_as)],
            "name": name,
            "version": versions[name],
            "parameters": "",
            "score": score,
        }
        for image_id, scores in measured.items()
        for name, score in scores.scores.items()
    ]
    for chunk in chunks(sorted({row["decoding_id"] for row in score_rows})):  # older scores may be of other pixels
        session.execute(delete(ScoreTable).where(ScoreTable.decoding_id.in_(chunk)))
    insert_or_update(session, ScoreTable, score_rows, keys=("decoding_id", "name", "version", "parameters"))


def _decoding_ids(session: Session, image_ids: Sequence[int]) -> dict[tuple[int, str], int]:
    """Read the ids of all decodings of these images, by image id and background."""
    ids: dict[tuple[int, str], int] = {}
    for chunk in chunks(image_ids):
        statement = select(DecodingTable.image_id, DecodingTable.background, DecodingTable.id)
        rows = session.execute(statement.where(DecodingTable.image_id.in_(chunk)))
        ids.update(((image_id, background), decoding_id) for image_id, background, decoding_id in rows)
    return ids


def record_rulings(
    session: Session, rulings: Mapping[int, Sequence[Ruling]], checks: Collection[str] | None = None
) -> None:
    """Write the rulings that reject, by member id.

    Args:
        checks: checks whose earlier rulings are replaced; None means all.
    """
    for chunk in chunks(list(rulings)):
        earlier = delete(RulingTable).where(RulingTable.member_id.in_(chunk))
        session.execute(earlier if checks is None else earlier.where(RulingTable.name.in_(checks)))
    rows = [
        {
            "member_id": member_id,
            "name": ruling.check,
            "version": ruling.version,
            "score": ruling.score,
            "reason": ruling.reason,
        }
        for member_id, member_rulings in rulings.items()
        for ruling in member_rulings
        if ruling.reason
    ]
    insert_or_update(session, RulingTable, rows, keys=("member_id", "name"))


def record_decisions(
    session: Session, states: Sequence[ImageState], verdicts: Mapping[int, ImageVerdict], rules: str
) -> None:
    """Write verdicts by member id, and for all these states the decoding and the digest of the rules behind them."""
    decided = [state for state in states if state.member_id in verdicts]
    others = [state for state in states if state.member_id not in verdicts]
    for chosen in (decided, others):
        rows = [
            {"member": state.member_id, "decoding_id": state.decoding_id, "rules": rules}
            | (_values(verdicts[state.member_id]) if chosen is decided else {})
            for state in chosen
        ]
        _update_members(session, rows)


def record_verdicts(session: Session, verdicts: Mapping[int, ImageVerdict]) -> None:
    """Write verdicts by member id; the recorded digest of their rules stays."""
    _update_members(session, [{"member": member_id} | _values(verdict) for member_id, verdict in verdicts.items()])


def _values(verdict: ImageVerdict) -> dict[str, object]:
    return {
        "verdict": "rejected" if verdict.rejected_by else "accepted",
        "rejected_by": verdict.rejected_by,
        "reason": verdict.reason,
        "copy_of_id": verdict.copy_of_id,
    }


def _update_members(session: Session, rows: Sequence[Mapping[str, object]]) -> None:
    """Update members. Each row holds a member id under `member` and new values by column name."""
    if not rows:
        return
    table = cast(Table, MemberTable.__table__)
    values: dict[str, BindParameter[object]] = {name: bindparam(name) for name in rows[0] if name != "member"}
    execute_many(session, update(table).where(table.c.id == bindparam("member")).values(values), rows)


def forget_decisions(session: Session, member_ids: Sequence[int]) -> None:
    """Mark these members as undecided (at most a chunk of them), so that the next cleaning decides them."""
    session.execute(update(MemberTable).where(MemberTable.id.in_(member_ids)).values(rules=None))
