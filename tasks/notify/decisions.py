"""Decisions on versions and changes of champions, told once each.

The history of champions is the list of what there is to tell. A mark in the state folder has the number of the last
told entry of each style. So a decision is also told if the run that made it was killed right after.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prefect import task
from prefect.settings import PREFECT_API_URL

from sdlora.records.champions import HistoryEntry
from sdlora.release.messages import MessageLink, decision_message
from sdlora.store.champions import champion_history, styles_with_history
from sdlora.store.image_store import ImageStore
from sdlora.store.location import StoreLocation
from tasks.notify.outbox import deliver
from tasks.notify.recipients import FOLDER
from tasks.notify.tell import announce
from tasks.private import private_file, private_folder
from tasks.results import Release
from tasks.run_log import run_log
from tasks.tracking import version_page


@task(name="notify", persist_result=False)
def notify_decisions(release: Release, home: Path) -> None:
    """Tell the recipients what was decided on versions of the style since the last message."""
    tell_decisions(release.name, home)


_RECENT = timedelta(minutes=10)
"""Age of an entry that is told although its style has no mark yet."""


def tell_all_decisions(home: Path) -> None:
    """Tell what was not told of all styles: decisions of people in a terminal, which end before any server starts."""
    if not StoreLocation.of_home(home).may_hold_images:
        return
    with ImageStore.open(home) as store, store.read() as session:
        styles = styles_with_history(session)
    for style in styles:
        tell_decisions(style, home)


def tell_decisions(style: str, home: Path) -> None:
    """Tell every entry of the style's history that was not told yet.

    Call it after an entry was added, from any flow or task. A failure is a warning.
    """
    try:
        _tell_decisions(style, home)
    except Exception:  # whatever the database raises; no message is worth a failed run
        log = run_log()
        log.warning("The decisions on %s could not be told", style, exc_info=True)


def evidence_links(style: str, version: int, run_digest: str | None, home: Path) -> list[MessageLink]:
    """Return the addresses of a version's page, report and picture; without a server the paths of the files."""
    links = []
    if page := version_page(style, version):
        links.append(MessageLink(label="Pictures and scores", address=page))
    if run_digest:
        folder = home / "runs" / style / run_digest[:16]
        files = (
            ("Report", folder / "release" / "report.html"),
            ("Picture", folder / "evaluation" / "before-after.png"),
        )
        links += [MessageLink(label=label, address=str(file)) for label, file in files if file.is_file()]
    return links


def _tell_decisions(style: str, home: Path) -> None:
    with ImageStore.open(home) as store, store.read() as session:
        history = champion_history(session, style)
    with _mark(style, home) as mark:
        told = mark.told
        if told is None:  # a new style, or a state folder from before the first message
            is_news = bool(history.entries) and datetime.now(UTC) - _in_utc(history.entries[-1].decided_at) < _RECENT
            told = history.length - is_news
        new = history.entries[told:]
        messages = [decision_message(style, entry, _links(style, entry, home)) for entry in new]
        announce(home, *messages)
        mark.told = history.length
    if messages and PREFECT_API_URL.value():  # else `sdlora up` or the next run sends them, who have a server
        deliver(home)


@dataclass
class _Mark:
    """Number of the last told entry of a style; None before the first."""

    told: int | None


@contextmanager
def _mark(style: str, home: Path) -> Iterator[_Mark]:
    """Yield the mark of a style, for one process at a time; a change is kept."""
    with os.fdopen(private_file(private_folder(home / FOLDER) / f"told-{style}"), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        text = file.read()
        mark = _Mark(int(text) if text.strip().isdecimal() else None)
        before = mark.told
        yield mark
        if mark.told != before:
            file.seek(0)
            file.truncate()
            file.write(f"{mark.told}\n")


def _in_utc(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _links(style: str, entry: HistoryEntry, home: Path) -> list[MessageLink]:
    return evidence_links(style, entry.version.number, entry.version.run_digest, home)
