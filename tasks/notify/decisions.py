"""Decisions on versions and changes of champions, told once each.

The history of champions is the list of what there is to tell. A mark in the state folder has the number of the last
told entry of each style. So a decision is also told if the run that made it was killed right after.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from prefect import task

from sdlora.core.files import replace_file
from sdlora.release.messages import MessageLink, decision_message
from sdlora.store.champions import HistoryEntry, champion_history
from sdlora.store.image_store import ImageStore
from tasks.notify.recipients import FOLDER
from tasks.notify.tell import tell
from tasks.private import private_folder
from tasks.results import Release
from tasks.run_log import run_log
from tasks.tracking import version_page


@task(name="notify", persist_result=False)
def notify_decisions(release: Release, home: Path) -> None:
    """Tell the recipients what was decided on versions of the style since the last message."""
    tell_decisions(release.name, home)


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
    mark = private_folder(home / FOLDER) / f"told-{style}"
    # Without a mark, the style is new, or its state folder is: only the newest entry is news.
    told = history.length - 1
    with suppress(FileNotFoundError, ValueError):
        told = int(mark.read_text())
    new = history.entries[max(told, 0) :]
    if not new:
        return
    tell(home, *(decision_message(style, entry, _links(style, entry, home)) for entry in new))
    replace_file(mark, f"{history.length}\n".encode())


def _links(style: str, entry: HistoryEntry, home: Path) -> list[MessageLink]:
    return evidence_links(style, entry.version.number, entry.version.run_digest, home)
