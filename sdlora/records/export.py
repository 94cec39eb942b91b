"""Record of a style's last export to the folder of a drawing tool, kept in the state folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdlora.core.config_base import FrozenConfig
from sdlora.core.files import replace_file

_FOLDER, _SETTINGS = "exports", "settings"


class ExportRecord(FrozenConfig):
    """Last export of a style's champion.

    Attributes:
        style: name of the style.
        file: file in the folder of the drawing tool.
        version: number of the champion.
        adapter_digest: adapter of the champion.
        problem: reason why the file is not the champion's, with the remedy; None if it is.
    """

    style: str
    file: Path
    version: int
    adapter_digest: str
    problem: str | None = None


def write_export_record(home: Path, record: ExportRecord) -> None:
    """Replace the record of a style.

    Raises:
        StorageError: the disk is full or not writable.
    """
    text = json.dumps(record.model_dump(mode="json"), indent=1)
    replace_file(_path(home, record.style), f"{text}\n".encode())


def write_export_settings(home: Path, style: str, settings: Mapping[str, Any]) -> None:
    """Keep the section `export` of a style's last run, so that a person's promotion or rollback exports alike.

    Raises:
        StorageError: the disk is full or not writable.
    """
    path = _settings_path(home, style)
    text = f"{json.dumps(settings, indent=1)}\n".encode()
    if not path.is_file() or path.read_bytes() != text:
        replace_file(path, text)


def export_settings(home: Path, style: str) -> dict[str, Any] | None:
    """Read the section `export` of a style's last run; None if it exported nothing, or if the file is damaged."""
    try:
        settings = json.loads(_settings_path(home, style).read_bytes())
    except (OSError, ValueError):
        return None
    return settings if isinstance(settings, dict) else None


def forget_export(home: Path, style: str) -> None:
    """Remove record and settings of a style that exports nothing any more; the exported file stays."""
    _path(home, style).unlink(missing_ok=True)
    _settings_path(home, style).unlink(missing_ok=True)


def export_record(home: Path, style: str) -> ExportRecord | None:
    """Read the record of a style; None if nothing was exported, or if the record is damaged."""
    return _read(_path(home, style))


def export_records(home: Path) -> list[ExportRecord]:
    """Read the records of all styles, by name."""
    records = (_read(path) for path in sorted((home / _FOLDER).glob("*.json")))
    return [record for record in records if record]


def _path(home: Path, style: str) -> Path:
    return home / _FOLDER / f"{style}.json"


def _settings_path(home: Path, style: str) -> Path:
    return home / _FOLDER / _SETTINGS / f"{style}.json"


def _read(path: Path) -> ExportRecord | None:
    try:
        return ExportRecord.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
