"""The champion's file in the folder where a drawing tool looks for adapters.

The folder holds NAME.safetensors, which is the champion, and NAME.previous, which is the champion before. Tools list
files by their suffix, so neither NAME.previous nor a half-written file appears in their lists.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from sdlora.core.errors import StorageError, WeightsError
from sdlora.core.files import written_aside
from sdlora.core.refs import AdapterRef, BaseModelRef
from sdlora.core.tensor_header import read_header
from sdlora.release.config import ExportConfig
from sdlora.release.exporting import write_single_file

_STYLE, _ADAPTER = "sdlora.style", "sdlora.adapter_digest"
_HIDDEN = ".partial"  # a suffix that no drawing tool lists
_KEEP = "Nothing was written there; the published version is not affected, and the next run tries again."


@dataclass(frozen=True)
class Champion:
    """Version of a style that is exported, with its base model."""

    style: str
    number: int
    adapter: AdapterRef
    base: BaseModelRef


def exported_file(folder: Path, style: str) -> Path:
    """Path of a style's champion in the folder of a drawing tool."""
    return folder / f"{style}.safetensors"


def export_champion(champion: Champion, folder: Path, config: ExportConfig) -> bool:
    """Write the champion into the folder, and keep the champion before as NAME.previous.

    Returns:
        False if the file of this version with these settings is there already.
    Raises:
        StorageError: the folder is missing or cannot be written, or a file there is not the style's.
        WeightsError: the adapter or its base model is damaged.
    """
    problem = folder_problem(folder)
    if problem:
        raise StorageError(f"{problem} {_KEEP}")
    final = exported_file(folder, champion.style)
    previous = folder / f"{champion.style}.previous"
    notes = {
        _STYLE: champion.style,
        "sdlora.version": str(champion.number),
        _ADAPTER: champion.adapter.digest,
        "sdlora.export": f"{config.reader}, {config.dtype}",
    }
    present = _notes_of(final, champion.style)
    _notes_of(previous, champion.style)
    if present is not None and notes.items() <= present.items():
        return False
    try:
        with written_aside(final, suffix=_HIDDEN) as partial:
            write_single_file(champion.adapter, partial, config.dtype, config.reader, champion.base, notes)
            if present is not None and present.get(_ADAPTER) != champion.adapter.digest:
                with written_aside(previous) as copy:
                    shutil.copyfile(final, copy)
    except (OSError, StorageError) as error:
        raise StorageError(
            f"export.on_promote: {final} cannot be written ({error}). Free some space or change the folder's rights. "
            f"{_KEEP}"
        ) from error
    return True


def folder_problem(folder: Path) -> str | None:
    """Reason why the folder cannot take files, with the remedy; None if it can. A missing folder is never made."""
    try:
        if folder.is_dir():
            if os.access(folder, os.W_OK | os.X_OK):
                return None
            return f"export.on_promote: {folder} is not writable. Change its rights."
        found = "is not a folder" if folder.exists() else "does not exist"
    except OSError as error:  # behind a folder that this user cannot enter, or a share that is away
        found = f"cannot be read ({error.strerror or error})"
    return f"export.on_promote: {folder} {found}. Make or mount the folder, or correct the setting."


def _notes_of(path: Path, style: str) -> dict[str, str] | None:
    """Read the metadata of a file that the style exported; None if there is no file.

    Raises:
        StorageError: the file is somebody else's.
    """
    if not os.path.lexists(path):
        return None
    try:
        metadata = read_header(path).metadata
    except WeightsError:
        metadata = {}
    if metadata.get(_STYLE) == style:
        return metadata
    other = f"of the style {metadata[_STYLE]!r}" if _STYLE in metadata else "no file that `sdlora run` has written"
    raise StorageError(
        f"export.on_promote: {path} is {other}, so it is not replaced. Move or rename it, or choose another folder. "
        f"{_KEEP}"
    )
