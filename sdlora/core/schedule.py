"""Settings of the clock that starts runs: cron times, time zone, allowed hours; the next start.

Prefect's server computes the starts. The next start is computed here too, for a list without servers. Both agree on
every expression that the settings accept; a test compares them. Expressions that they read differently are refused.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from functools import cache
from typing import Self
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator, model_validator

from sdlora.core.config_base import SettingsSection
from sdlora.core.quoting import escaped

MAX_TAGS, MAX_TAG_CHARS = 20, 50
_VALUE = r"(?:\d{1,2}|[A-Za-z]{3})"
_STEP = r"(?:/\d{1,2})?"  # after * or a range; Prefect and cron differ in what a step after a number means
_TERM = rf"(?:\*{_STEP}|{_VALUE}(?:-{_VALUE}{_STEP})?)"
_FIELD = re.compile(rf"{_TERM}(?:,{_TERM})*")
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_SOME_DAY = datetime(2027, 1, 1)  # noqa: DTZ001  # wall-clock time, as cron means it


class ScheduleConfig(SettingsSection):
    """Settings of the clock that starts runs while `sdlora up` runs; they change neither the adapter nor the run."""

    cron: str | None = Field(
        None, description="when the clock starts a run: minute, hour, day, month, weekday; empty: never"
    )
    timezone: str = Field("UTC", description="time zone of cron and window, such as Europe/Berlin")
    window: str | None = Field(
        None, description="hours in which runs may start that no person asked for, such as 20:00-07:00; empty: any"
    )
    max_hours_a_day: float | None = Field(
        None, gt=0, le=24, description="hours of a day that the style may train unless a person asks; empty: any"
    )
    tags: tuple[str, ...] = Field((), max_length=MAX_TAGS, description="tags of the style's runs in Prefect's pages")

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, value: str | None) -> str | None:
        if value is not None:
            _require_cron(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _is_timezone(cls, value: str) -> str:
        if value not in _timezones():
            nearest = difflib.get_close_matches(value, _timezones(), n=3, cutoff=0.5)
            remedy = f"Nearest: {', '.join(nearest)}" if nearest else "Write it as Europe/Berlin or UTC"
            raise ValueError(f"a time zone of the IANA database is expected. {remedy}")
        return value

    @field_validator("window")
    @classmethod
    def _is_window(cls, value: str | None) -> str | None:
        if value is not None:
            if not _WINDOW.fullmatch(value):
                raise ValueError("two times of a day are expected, such as 20:00-07:00")
            if len(set(value.split("-"))) == 1:
                raise ValueError("two different times are expected; for the whole day, leave window empty")
        return value

    @field_validator("tags")
    @classmethod
    def _are_tags(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for tag in value:
            if not tag.strip() or not tag.isprintable() or len(tag) > MAX_TAG_CHARS:
                raise ValueError(f"tags of 1 to {MAX_TAG_CHARS} printable characters are expected")
        return tuple(dict.fromkeys(value))

    @model_validator(mode="after")
    def _cron_meets_window(self) -> Self:
        if self.cron and self.window:
            times = CronSim(self.cron, _SOME_DAY)
            if not any(_is_inside(self.window, hour * 60 + minute) for hour in times.hours for minute in times.minutes):
                raise ValueError(f"cron {self.cron} never falls into window {self.window}: no run would ever start")
        return self

    @property
    def zone(self) -> tzinfo:
        return ZoneInfo(self.timezone)


def is_allowed(schedule: ScheduleConfig, moment: datetime) -> bool:
    """Return True if `moment`, a time with its zone, lies in the allowed hours; the end of the hours does not."""
    local = moment.astimezone(schedule.zone)
    return schedule.window is None or _is_inside(schedule.window, local.hour * 60 + local.minute)


def next_start(schedule: ScheduleConfig, after: datetime) -> datetime | None:
    """Compute the next start by the clock in the allowed hours.

    Args:
        after: a time with its zone; the start is later.

    Returns:
        The start in UTC; None without cron times.
    """
    return next((start for start in _starts(schedule, after) if is_allowed(schedule, start)), None)


@cache
def _timezones() -> set[str]:
    return available_timezones()  # reads the folders of the database: 20 ms


def _starts(schedule: ScheduleConfig, after: datetime) -> Iterator[datetime]:
    if schedule.cron is None:
        return
    # Cron is about wall-clock times, which are given their zone afterwards. An hour that a change of the clocks leaves
    # out becomes the one after it.
    for local in CronSim(schedule.cron, after.astimezone(schedule.zone).replace(tzinfo=None)):
        start = local.replace(tzinfo=schedule.zone).astimezone(UTC)
        if start > after:
            yield start


def _require_cron(text: str) -> None:
    fields = text.split()
    if len(fields) != 5 or not all(map(_FIELD.fullmatch, fields)):
        raise ValueError(
            'five fields are expected: minute, hour, day of the month, month, weekday, such as "0 3 * * *" or '
            '"30 22 * * mon-fri", with numbers, three letters of a name, * , - and /'
        )
    if fields[2] != "*" and fields[4] != "*":
        raise ValueError(
            "a day of the month or a weekday is expected, not both: programs differ in whether one or both must fit"
        )
    for start, end in re.findall(rf"({_VALUE})-({_VALUE})", text):
        if start.lower() == end.lower():
            raise ValueError(f"{escaped(start)} is expected for the range {escaped(start)}-{escaped(end)}")
    try:
        next(CronSim(text, _SOME_DAY))
    except CronSimError as error:
        raise ValueError(f"valid fields are expected: {str(error)[:1].lower()}{str(error)[1:]}") from error
    except StopIteration:
        raise ValueError("a time that comes is expected; these fields never fit together") from None


def _is_inside(window: str, minute_of_day: int) -> bool:
    numbers = _WINDOW.fullmatch(window)
    assert numbers, window
    start_hour, start_minute, end_hour, end_minute = map(int, numbers.groups())
    start, end = start_hour * 60 + start_minute, end_hour * 60 + end_minute
    if start < end:
        return start <= minute_of_day < end
    return minute_of_day >= start or minute_of_day < end  # over midnight
