"""Figures of many styles in a few statements: images, champion, last decision, last run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from sdlora.records.champions import ScoredVersion
from sdlora.store.champions import champion_history
from sdlora.store.tables.datasets import DatasetTable, MemberTable
from sdlora.store.tables.versions import SnapshotTable
from sdlora.store.tickets import Ticket, last_runs


@dataclass(frozen=True)
class StyleFigures:
    """Figures of a style, as shown in a list.

    Attributes:
        images: members of its dataset by now.
        new_images: those that joined after the newest snapshot of the dataset and are not rejected.
        champion: version in use; None without one.
        outcome: kind of the newest entry in the history of champions; None before the first decision.
        decided_at: time of that entry.
        last_run: ticket of the last ended run; None before the first one.
    """

    images: int = 0
    new_images: int = 0
    champion: ScoredVersion | None = None
    outcome: str | None = None
    decided_at: datetime | None = None
    last_run: Ticket | None = None

    @property
    def last_outcome(self) -> tuple[str, datetime] | None:
        """Outcome of the last run and its time; of a finished run the decision, of runs without a ticket the last."""
        run = self.last_run
        decision = (self.outcome, self.decided_at) if self.outcome and self.decided_at else None
        if run is None or run.ended_at is None or (run.state == "done" and decision):
            return decision
        return run.state, run.ended_at


def style_figures(session: Session, datasets: Mapping[str, str]) -> dict[str, StyleFigures]:
    """Read the figures of styles.

    Args:
        datasets: name of the dataset of each style, by the name of the style.
    """
    counts, runs = _image_counts(session), last_runs(session, datasets)
    figures = {}
    for style, dataset in datasets.items():
        images, new_images = counts.get(dataset, (0, 0))
        history = champion_history(session, style)
        kind, decided_at = None, None
        if history.entries:
            kind, decided_at = history.entries[-1].kind, history.entries[-1].decided_at
        figures[style] = StyleFigures(images, new_images, history.champion, kind, decided_at, runs.get(style))
    return figures


def _image_counts(session: Session) -> dict[str, tuple[int, int]]:
    """Return the number of images, and of those new since the newest snapshot, by the name of the dataset."""
    newest = select(SnapshotTable.dataset_id, func.max(SnapshotTable.made_at).label("made_at"))
    newest_snapshot = newest.group_by(SnapshotTable.dataset_id).subquery()
    is_later = newest_snapshot.c.made_at.is_(None) | (MemberTable.added_at > newest_snapshot.c.made_at)
    is_new = is_later & (func.coalesce(MemberTable.verdict, "") != "rejected")
    statement = (
        select(DatasetTable.name, func.count(), func.sum(case((is_new, 1), else_=0)))
        .join(MemberTable, MemberTable.dataset_id == DatasetTable.id)
        .outerjoin(newest_snapshot, newest_snapshot.c.dataset_id == DatasetTable.id)
        .where(MemberTable.removed_at.is_(None))
        .group_by(DatasetTable.name)
    )
    return {name: (images, int(new)) for name, images, new in session.execute(statement)}
