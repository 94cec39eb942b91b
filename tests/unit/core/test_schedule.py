"""The clock of a style: what is accepted, when it starts the next run, and that Prefect reads the same times."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sdlora.config import PipelineConfig, parse_settings
from sdlora.core.errors import ConfigError
from sdlora.core.schedule import ScheduleConfig, is_allowed, next_start

NOON = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)  # a Monday


def start(cron: str | None, after: datetime = NOON, **more: str) -> str:
    found = next_start(ScheduleConfig(cron=cron, **more), after)
    assert found
    return f"{found:%a %Y-%m-%d %H:%M}"


def test_the_next_start_is_after_now_in_the_time_zone():
    assert start("0 3 * * *") == "Tue 2026-12-01 03:00"
    assert start("0 3 * * *", timezone="Europe/Berlin") == "Tue 2026-12-01 02:00"
    assert start("0 3 * * *", datetime(2026, 6, 1, tzinfo=UTC), timezone="Europe/Berlin") == "Mon 2026-06-01 01:00"
    assert start("0 12 * * *") == "Tue 2026-12-01 12:00"  # not this one
    assert start("30 22 * * mon-fri", NOON + timedelta(days=5)) == "Mon 2026-12-07 22:30"
    assert start("0 0 1 1 *") == "Fri 2027-01-01 00:00"
    assert next_start(ScheduleConfig(), NOON) is None


def test_an_hour_that_the_change_of_clocks_leaves_out_or_repeats_is_one_start():
    left_out = datetime(2027, 3, 28, tzinfo=UTC)  # 02:00 to 03:00 in Berlin does not exist
    assert start("30 2 * * *", left_out, timezone="Europe/Berlin") == "Sun 2027-03-28 01:30"
    twice = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # 02:30, for the first time
    assert start("30 2 * * *", twice, timezone="Europe/Berlin") == "Mon 2026-10-26 01:30"


def test_starts_outside_the_window_are_none():
    hourly = {"timezone": "Europe/Berlin", "window": "20:00-07:00"}
    assert start("0 * * * *", **hourly) == "Mon 2026-11-30 19:00"  # 20:00 in Berlin
    assert start("0 9,23 * * *", NOON + timedelta(hours=11), **hourly) == "Tue 2026-12-01 22:00"


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [
        ("20:00-07:00", ["20:00", "23:59", "00:00", "06:59"], ["19:59", "07:00", "12:00"]),
        ("08:30-17:00", ["08:30", "16:59"], ["08:29", "17:00", "00:00"]),
    ],
)
def test_the_window_holds_its_first_minute_and_not_its_last(window, inside, outside):
    schedule = ScheduleConfig(window=window, timezone="America/New_York")
    for text in [*inside, *outside]:
        hour, minute = map(int, text.split(":"))
        moment = datetime(2026, 11, 30, hour, minute, 59, tzinfo=ZoneInfo("America/New_York")).astimezone(UTC)
        assert is_allowed(schedule, moment) == (text in inside), text
    assert is_allowed(ScheduleConfig(), NOON)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cron": "0 3 * *"}, r"schedule\.cron: .*five fields.*found '0 3 \* \*'"),
        ({"cron": "@daily"}, r"schedule\.cron: .*five fields"),
        ({"cron": "0 0 3 * * *"}, r"schedule\.cron: .*five fields"),
        ({"cron": "0 3 L * *"}, r"schedule\.cron: .*five fields"),
        ({"cron": "0 3 * * fri#2"}, r"schedule\.cron: .*five fields"),
        ({"cron": "5/15 3 * * *"}, r"schedule\.cron: .*five fields"),
        ({"cron": "61 3 * * *"}, r"schedule\.cron: .*bad minute"),
        ({"cron": "0 3 * * foo"}, r"schedule\.cron: .*bad day-of-week"),
        ({"cron": "0 3 31 2 *"}, r"schedule\.cron: .*bad day-of-month"),
        ({"cron": "0 3 13 * fri"}, r"schedule\.cron: .*not both"),
        ({"cron": "0 3 * 3-3 *"}, r"schedule\.cron: .*3 is expected for the range 3-3"),
        ({"cron": "0 3 * MAR-mar *"}, r"schedule\.cron: .*MAR is expected for the range"),
        ({"timezone": "Europe/Berln"}, r"schedule\.timezone: .*Nearest: Europe/Berlin"),
        ({"timezone": "../../etc/passwd"}, r"schedule\.timezone: .*Europe/Berlin or UTC"),
        ({"window": "20-7"}, r"schedule\.window: .*such as 20:00-07:00"),
        ({"window": "24:00-07:00"}, r"schedule\.window: .*such as 20:00-07:00"),
        ({"window": "07:00-07:00"}, r"schedule\.window: .*two different times"),
        ({"cron": "0 12 * * *", "window": "20:00-07:00"}, r"schedule: .*never falls into window 20:00-07:00"),
        ({"tags": [""]}, r"schedule\.tags: .*1 to 50 printable"),
        ({"tags": ["\x1b[31m"]}, r"schedule\.tags: .*1 to 50 printable"),
        ({"tags": [f"tag {number}" for number in range(21)]}, r"schedule\.tags: "),
        ({"crom": "0 3 * * *"}, r"schedule\.crom: unknown setting\. Did you mean 'cron'"),
    ],
)
def test_what_would_start_no_run_is_refused_by_the_settings_name(settings, message):
    with pytest.raises(ConfigError, match=message):
        parse_settings({"schedule": settings}, PipelineConfig, "style.yaml")


def test_equal_tags_are_one():
    assert ScheduleConfig(tags=("art", "night", "art")).tags == ("art", "night")


def fields(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    term = st.one_of(
        number.map(str),
        st.tuples(number, number).map(lambda pair: f"{pair[0]}-{pair[1]}"),
        st.integers(1, high).map(lambda step: f"*/{step}"),
        st.tuples(number, number, st.integers(1, 9)).map(lambda three: f"{three[0]}-{three[1]}/{three[2]}"),
    )
    return st.one_of(st.just("*"), term, st.lists(term, min_size=2, max_size=3).map(",".join))


@settings(max_examples=200, deadline=None)
@given(
    cron=st.tuples(fields(0, 59), fields(0, 23), fields(1, 31), fields(1, 12), fields(0, 7)).map(" ".join),
    after=st.integers(0, 1_000_000).map(lambda minutes: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)),
    day_field=st.sampled_from([2, 4]),
    timezone=st.sampled_from(["UTC", "Asia/Kolkata", "Europe/Berlin", "America/New_York"]),
)
def test_prefect_reads_the_same_times(cron, after, day_field, timezone):
    from prefect.server.schemas.schedules import CronSchedule

    cron = " ".join("*" if number == day_field else part for number, part in enumerate(cron.split()))
    try:
        schedule = ScheduleConfig(cron=cron, timezone=timezone)
    except ValidationError:
        assume(False)
    change = re.compile(r"2\d{3}-(03|10|11)-")  # the two treat the hours of a change of clocks in their own ways
    (theirs,) = CronSchedule(cron=cron, timezone=timezone)._get_dates_generator(1, after + timedelta(seconds=1))
    assume(timezone in ("UTC", "Asia/Kolkata") or not change.search(str(theirs)))
    assert next_start(schedule, after) == theirs
