"""Decision whether a style's new data start a run, with the reason in words.

The decision reads the database alone. So it may be made at any time, by any process, after any loss of a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from sdlora.core.schedule import ScheduleConfig, is_allowed
from sdlora.core.trigger import TriggerConfig
from sdlora.store.datasets import find_dataset
from sdlora.store.inputs import dataset_digest
from sdlora.store.starts import Start, failed, next_try_at, open_start, starts_of
from sdlora.store.style_records import StyleRecord, style_record
from sdlora.store.tables.datasets import FileTable, MemberTable, OverrideTable, SourceTable
from sdlora.store.tables.images import ImageTable
from sdlora.store.tables.ratings import GenerationTable, RatingTable
from sdlora.store.tables.tickets import TicketTable
from sdlora.store.tables.versions import SnapshotImageTable, SnapshotTable
from sdlora.store.tickets import active_tickets
from sdlora.store.training_hours import trained_today

_RUN_LOOK = timedelta(seconds=3)
"""Time until the next look at a run that is underway."""
_LIMIT_LOOK = timedelta(minutes=5)
CLOCK_SLACK = timedelta(minutes=5)
"""Difference of two machines' clocks that is no change of a clock."""


@dataclass(frozen=True)
class TriggeredStyle:
    """Style as the decision sees it.

    Attributes:
        dataset: name of its dataset.
        min_images: images without which no run of the style can train.
        settings_digest: digest of its settings and of the files of its base model.
    """

    name: str
    dataset: str
    trigger: TriggerConfig
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    min_images: int = 0
    settings_digest: str = ""


@dataclass(frozen=True)
class Readiness:
    """Decision about a style.

    Attributes:
        reason: why a run starts now, or why it does not.
        new_images: images that no run of the style has dealt with and that are not rejected.
        data_digest: digest of the dataset's rows; None if they were dealt with.
        look_again_at: time at which the answer can change without further news; None if only news change it.
        tries: runs that new data started for the same news with the same settings.
    """

    style: str
    is_ready: bool
    reason: str
    new_images: int = 0
    data_digest: str | None = None
    look_again_at: datetime | None = None
    tries: tuple[Start, ...] = ()

    @property
    def text(self) -> str:
        """Decision in words, such as `2 new images; 3 new images start a run`."""
        return f"{self.reason}: a run starts" if self.is_ready else self.reason

    @property
    def is_given_up(self) -> bool:
        """True if the runs for these news failed too often."""
        is_over = bool(self.tries) and self.tries[-1].state == "ended" and next_try_at(self.tries) is None
        return not self.is_ready and is_over and not self.tries[-1].is_cancelled


@dataclass(frozen=True)
class _News:
    images: int
    usable_images: int
    first_at: datetime | None
    last_at: datetime | None


def readiness(session: Session, style: TriggeredStyle, now: datetime) -> Readiness:
    """Decide whether a run of a style starts by itself.

    Args:
        now: the time, with its zone.
    """
    if not style.trigger.is_on:
        return Readiness(style.name, False, "the style has no section trigger")
    dataset_id = find_dataset(session, style.dataset)
    if dataset_id is None:
        return Readiness(style.name, False, "no image has come yet")
    record, digest = style_record(session, style.name), dataset_digest(session, style.dataset)
    if record.data_digest == digest:
        # A run deals with its images a moment before Prefect has its end, which has to be recorded too.
        is_ending = open_start(session, style.name) is not None
        return Readiness(style.name, False, "nothing new", look_again_at=now + _RUN_LOOK if is_ending else None)
    news = _news(session, dataset_id, record)
    tries = tuple(starts_of(session, style.name, digest, style.settings_digest))

    def waits(reason: str, until: datetime | None = None) -> Readiness:
        return Readiness(style.name, False, reason, news.images, digest, until, tries)

    if obstacle := _obstacle(session, style.name, tries, now):
        return waits(*obstacle)
    if record.left_alone == (digest, style.settings_digest):
        change = "a change of images or settings starts one"
        return waits(f"the last run left these images alone; {change}, and so does: sdlora run {style.name}")
    is_enough, reason, until = _wait(news, record, style.trigger, now)
    if not is_enough:
        return waits(reason, until)
    if closed := _closed(session, style, news, now):
        return waits(f"{reason}; {closed[0]}", closed[1])
    return Readiness(style.name, True, reason, news.images, digest, None, tries)


def change_token(session: Session) -> tuple[object, ...]:
    """Return a value that differs after anything that can make a style ready; costs less than a millisecond.

    A change of captions or masks alone changes nothing in it: the next look by the clock finds it.
    """
    newest = [
        session.scalar(select(func.max(column)))
        for column in (
            MemberTable.id, FileTable.id, OverrideTable.id, RatingTable.id, TicketTable.id, SnapshotTable.id,
            SourceTable.id, GenerationTable.id,
        )
    ]  # fmt: skip
    active = session.execute(
        select(TicketTable.id, TicketTable.state).where(TicketTable.state.in_(("waiting", "running")))
    )
    return (*newest, tuple(map(tuple, active)))


def _closed(session: Session, style: TriggeredStyle, news: _News, now: datetime) -> tuple[str, datetime | None] | None:
    """Return why no run starts at this moment although the news are enough, and when to look again."""
    schedule = style.schedule
    if news.usable_images < style.min_images:
        return f"a run needs at least {style.min_images} images, there are {news.usable_images}", None
    if not is_allowed(schedule, now):
        return f"a run starts in the hours {schedule.window}", now + timedelta(minutes=1)
    if schedule.max_hours_a_day is None:
        return None
    if trained_today(session, style.name, now, schedule.zone) < timedelta(hours=schedule.max_hours_a_day):
        return None
    return f"the style has trained {schedule.max_hours_a_day:g} hours today", now + _LIMIT_LOOK


def _obstacle(
    session: Session, style: str, tries: Sequence[Start], now: datetime
) -> tuple[str, datetime | None] | None:
    """Return why no run starts whatever the news are, and the time at which this ends by itself."""
    if busy := _busy(session, style, now):
        return busy
    if not tries:
        return None
    until = next_try_at(tries)
    if until is None:
        if tries[-1].is_cancelled:
            return "a person cancelled the run for these images", None
        return f"given up after {len(failed(tries))} runs that did not end well: {tries[-1].outcome}", None
    if until > now:
        return f"the last run did not deal with them ({tries[-1].outcome}); it is tried again later", until
    return None


def _busy(session: Session, style: str, now: datetime) -> tuple[str, datetime | None] | None:
    for ticket in active_tickets(session):
        if (
            ticket.request.style == style
            and ticket.request.what in ("retrain", "adopt")
            and not ticket.holder.has_ended
        ):
            return f"{ticket.since}, and the new images wait for its end", None
    start = open_start(session, style)
    if start is None:
        return None
    return f"a run was started at {start.asked_at.astimezone():%H:%M}", now + _RUN_LOOK


def _news(session: Session, dataset_id: int, record: StyleRecord) -> _News:
    """Count the images that are new to the style, and find the times of the first and the last news."""
    snapshot_id = session.scalar(
        select(SnapshotTable.id).where(
            SnapshotTable.dataset_id == dataset_id, SnapshotTable.digest == (record.snapshot_digest or "")
        )
    )
    in_snapshot = select(SnapshotImageTable.image_id).where(
        SnapshotImageTable.snapshot_id == snapshot_id, SnapshotImageTable.image_id == MemberTable.image_id
    )
    is_usable = and_(
        MemberTable.dataset_id == dataset_id,
        MemberTable.removed_at.is_(None),
        func.coalesce(MemberTable.verdict, "") != "rejected",
    )
    usable_images = session.scalar(select(func.count()).select_from(MemberTable).where(is_usable)) or 0
    images, first_at, last_at = session.execute(
        select(func.count(), func.min(MemberTable.added_at), func.max(MemberTable.added_at)).where(
            is_usable, ~in_snapshot.exists()
        )
    ).one()
    after = record.dealt_with_at or datetime.min.replace(tzinfo=UTC)
    rated_at = (
        select(func.max(RatingTable.rated_at), func.max(RatingTable.withdrawn_at))
        .join(ImageTable, ImageTable.sha256 == RatingTable.sha256)
        .join(MemberTable, MemberTable.image_id == ImageTable.id)
        .where(
            MemberTable.dataset_id == dataset_id, or_(RatingTable.rated_at > after, RatingTable.withdrawn_at > after)
        )
    )
    changed_at = (
        select(func.max(OverrideTable.made_at), func.max(OverrideTable.withdrawn_at))
        .join(MemberTable, MemberTable.id == OverrideTable.member_id)
        .where(
            MemberTable.dataset_id == dataset_id, or_(OverrideTable.made_at > after, OverrideTable.withdrawn_at > after)
        )
    )
    times = [*session.execute(rated_at).one(), *session.execute(changed_at).one()]
    times = [moment for moment in times if moment is not None and moment > after]
    return _News(images, usable_images, _least([first_at, *times]), _greatest([last_at, *times]))


def _wait(news: _News, record: StyleRecord, trigger: TriggerConfig, now: datetime) -> tuple[bool, str, datetime | None]:
    """Return whether the news start a run, the reason, and the time at which they do so without further news."""
    count = f"{news.images} new {'image' if news.images == 1 else 'images'}"
    since = news.first_at or record.dealt_with_at
    if since is None or trigger.min_new_images is None:
        return False, "no image has come yet", None
    last_at = news.last_at or since
    patience_ends = since + timedelta(hours=trigger.max_wait_hours)
    quiet_from = last_at + timedelta(minutes=trigger.quiet_minutes)
    if _is_over(patience_ends, now, since):
        return True, f"{count}, and the first news came {trigger.max_wait_hours:g} hours ago", None
    if news.images < trigger.min_new_images:
        what = count if news.images else "changes of known images"
        return False, f"{what}; {trigger.min_new_images} new images start a run", patience_ends
    if not _is_over(quiet_from, now, last_at):
        quiet = f"{trigger.quiet_minutes:g} minutes without further ones"
        return False, f"{count}; a run starts after {quiet}", min(quiet_from, patience_ends)
    return True, count, None


def _least(times: Iterable[datetime | None]) -> datetime | None:
    return min((moment for moment in times if moment is not None), default=None)


def _greatest(times: Iterable[datetime | None]) -> datetime | None:
    return max((moment for moment in times if moment is not None), default=None)


def _is_over(deadline: datetime, now: datetime, since: datetime) -> bool:
    """Return True after the deadline, and if the clock was set back since the wait began: no wait gets longer by it."""
    return now >= deadline or since - now > CLOCK_SLACK
