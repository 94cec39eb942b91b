"""Runs that end without doing anything, and the reason on their page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prefect.states import Completed

from sdlora.core.errors import SdloraError
from sdlora.core.schedule import ScheduleConfig, is_allowed
from tasks.pages.run_names import add_to_name
from tasks.run_log import run_log
from tasks.waiting.asked_by import asked_by


class OutsideHoursError(SdloraError):
    """End of a run of the clock or of a trigger whose turn in the queue came outside the hours of its schedule."""


def outside_window(schedule: ScheduleConfig) -> str | None:
    """Return the reason why the running flow may not start now; None if it may. A person's run always may."""
    now = datetime.now(UTC)
    if asked_by() == "person" or is_allowed(schedule, now):
        return None
    local = now.astimezone(schedule.zone)
    return f"it is {local:%H:%M} in {schedule.timezone}, outside the hours of schedule.window, {schedule.window}"


def skipped(reason: str) -> Any:
    """Return what a flow returns to end early: a completed state with the reason as its message.

    The run's name says it too. A state of another name, such as `Skipped`, would be shown nowhere on the deployment's
    page, which lists the states that Prefect knows.
    """
    message = f"skipped, because {reason}"
    run_log().info("Nothing was done: %s", message)
    add_to_name("skipped")
    return Completed(message=message)


def continued_tomorrow(reason: str) -> Any:
    """Return what a flow returns that stopped with a checkpoint at its daily limit."""
    message = f"stopped with a checkpoint, because {reason}"
    run_log().info("%s", message)
    add_to_name("continues tomorrow")
    return Completed(message=message)
