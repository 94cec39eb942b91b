"""Sources that gave images before and give none now: unreachable, gone, or empty.

A file in the state folder remembers each source that gave images. Its name is a digest, because an address may contain
a password.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from sdlora.core.config_base import FrozenConfig
from sdlora.core.files import json_digest, replace_file
from sdlora.data.sources.base import redacted
from sdlora.release.messages import silence_message
from tasks.notify.recipients import FOLDER
from tasks.notify.tell import tell
from tasks.private import private_folder
from tasks.run_log import run_log

SILENT_TIMES = 3
"""Collections in a row without images after which people hear of it."""


class SourceHealth(FrozenConfig):
    """Collections of a source in a row that found no image."""

    silent_times: int = 0
    silent_since: datetime | None = None


def source_spoke(home: Path, dataset: str, uri: str) -> None:
    """Remember that a source gave images."""
    path = _file(home, dataset, uri)
    health = _read(path)
    if health is None or health.silent_times:
        _write(path, SourceHealth())


def source_is_silent(home: Path, dataset: str, uri: str, reason: str) -> None:
    """Count a collection that found no image, and tell people if it is one too many. Never raises.

    A source that never gave an image is left out: its address is wrong, as its run says.
    """
    try:
        path = _file(home, dataset, uri)
        health = _read(path)
        if health is None:
            return
        since = health.silent_since or datetime.now(UTC)
        health = SourceHealth(silent_times=health.silent_times + 1, silent_since=since)
        _write(path, health)
        if health.silent_times == SILENT_TIMES:
            tell(home, silence_message(dataset, redacted(uri), SILENT_TIMES, since, reason))
    except Exception:  # a full disk, for example; the run itself ends with the source's error
        log = run_log()
        log.warning("The silence of a source could not be recorded", exc_info=True)


def _file(home: Path, dataset: str, uri: str) -> Path:
    return private_folder(home / FOLDER) / "sources" / f"{json_digest([dataset, uri])[:32]}.json"


def _read(path: Path) -> SourceHealth | None:
    try:
        return SourceHealth.model_validate_json(path.read_text())
    except (FileNotFoundError, ValidationError):
        return None


def _write(path: Path, health: SourceHealth) -> None:
    replace_file(path, health.model_dump_json().encode())
