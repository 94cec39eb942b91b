"""Parts of the flow `reconcile`; each returns what it did in words and logs its own failure."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path

from prefect import task
from prefect.client.orchestration import get_client

from sdlora.core.errors import TrainingError
from tasks.alive import crash_killed
from tasks.decisions.aliases import reconcile_aliases
from tasks.private import private_file
from tasks.retention import collect_garbage
from tasks.run_log import log_text, run_log
from tasks.triggered import triggered_styles
from tasks.waiting.triggers import registered_configs, start_ready

GARBAGE_FILE = "gc.time"
GARBAGE_SECONDS = 24 * 3600.0
"""Time between two clean-ups by the clock."""
_Part = Callable[[Path], list[str]]


def _on_its_own(part: _Part) -> _Part:
    """Log the failure of a part: the other parts are as useful without it, and the next run tries again."""

    @wraps(part)
    def guarded(home: Path) -> list[str]:
        log = run_log()
        try:
            found = part(home)
        except Exception as error:
            log.warning("%s failed: %s", part.__name__.replace("_", " "), log_text(error), exc_info=True)
            return [f"{part.__name__.replace('_', ' ')} failed: {log_text(error)}"]
        for line in found:
            log.info("%s", line)
        return found

    return guarded


@task(name="end dead runs", persist_result=False)
@_on_its_own
def end_dead_runs(home: Path) -> list[str]:
    """Mark runs as crashed whose process is gone."""
    return [f"run {name} was killed and is marked as crashed" for name in crash_killed(home)]


@task(name="start what is ready", persist_result=False)
@_on_its_own
def start_what_is_ready(home: Path) -> list[str]:
    """Start the run of every style whose new data are ready, as the watcher of `sdlora up` does."""
    with get_client(sync_client=True) as client:
        styles = triggered_styles(registered_configs(client))
    decisions = start_ready(styles, home, datetime.now(UTC)) if styles else []
    return [f"{one.style}: {'a run starts, ' if one.is_ready else ''}{one.reason}" for one in decisions]


@task(name="repair aliases", persist_result=False)
@_on_its_own
def repair_aliases(home: Path) -> list[str]:
    """Bring MLflow's aliases and the history of champions into agreement, for every style."""
    return reconcile_aliases(home)


@task(name="clear up", persist_result=False)
@_on_its_own
def clear_up(home: Path) -> list[str]:
    """Delete what the rules of retention list, once a day and not while a run works in the state folder."""
    marker = home / GARBAGE_FILE
    if marker.exists() and 0 <= time.time() - marker.stat().st_mtime < GARBAGE_SECONDS:
        return []
    try:
        garbage = collect_garbage(home)
    except TrainingError:  # a run works; the next quarter of an hour tries again
        return []
    os.close(private_file(marker))
    os.utime(marker)
    return [f"deleted {len(garbage.removals)} things, {garbage.size / 1e6:.0f} MB"] if garbage.removals else []
