"""Selection of images of a dataset by their records: verdict, source, caption, licence, ratings, ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from sqlalchemy import ColumnElement, SQLColumnExpression, exists, func, or_, select
from sqlalchemy.orm import aliased

from sdlora.store.records import Verdict
from sdlora.store.tables.datasets import CaptionTable, FileTable, MemberTable, SourceTable
from sdlora.store.tables.images import ImageTable
from sdlora.store.tables.ratings import RatingTable


@dataclass(frozen=True)
class Selection:
    """Conditions that an image has to meet; without any, every image is selected.

    Attributes:
        rejected_by: name of a check, such as "near_duplicate".
        source: pattern of a source's name (`photos`), or of its name with a path (`photos/2024/*`).
        caption: text that one of the captions of the image or its rejected copies contains, ignoring case.
        licence: pattern of the recorded licence, such as `CC0*`, ignoring case.
        min_stars: least mean of the ratings; images without a rating are not selected.
        ids: first digits of the SHA-256; one of them has to fit.
    """

    verdict: Verdict | None = None
    rejected_by: str | None = None
    source: str | None = None
    caption: str | None = None
    licence: str | None = None
    min_stars: float | None = None
    ids: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """True without any condition."""
        return not any(getattr(self, field.name) for field in fields(self))

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """Yield the conditions for a statement on members that is joined with their images."""
        if self.verdict is not None:
            yield MemberTable.verdict == self.verdict
        if self.rejected_by is not None:
            yield MemberTable.rejected_by == self.rejected_by
        if self.source is not None:
            yield _seen_in(self.source)
        if self.caption is not None:
            yield _captioned(self.caption)
        if self.licence is not None:
            yield _fits(MemberTable.licence, self.licence)
        if self.min_stars is not None:
            counting = RatingTable.withdrawn_at.is_(None)
            rated = select(RatingTable.sha256).where(counting).group_by(RatingTable.sha256)
            yield ImageTable.sha256.in_(rated.having(func.avg(RatingTable.stars) >= self.min_stars))
        if self.ids:
            yield or_(*(ImageTable.sha256.startswith(digits.lower(), autoescape=True) for digits in self.ids))


def _captioned(words: str) -> ColumnElement[bool]:
    matches = CaptionTable.text.icontains(words, autoescape=True)
    copies = aliased(MemberTable)
    of_copies = select(copies.copy_of_id).join(CaptionTable, CaptionTable.member_id == copies.id).where(matches)
    return MemberTable.captions.any(matches) | MemberTable.id.in_(of_copies)


def _seen_in(pattern: str) -> ColumnElement[bool]:
    path = SourceTable.name + "/" + FileTable.path
    return exists().where(
        FileTable.member_id == MemberTable.id,
        FileTable.source_id == SourceTable.id,
        or_(_fits(SourceTable.name, pattern), _fits(path, pattern)),
    )


def _fits(column: SQLColumnExpression[str] | SQLColumnExpression[str | None], pattern: str) -> ColumnElement[bool]:
    """Return the condition that a text fits a pattern with `*` and `?`, ignoring case."""
    escaped = "".join(f"\\{character}" if character in "\\%_" else character for character in pattern.lower())
    return func.lower(column).like(escaped.replace("*", "%").replace("?", "_"), escape="\\")
