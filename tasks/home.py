"""Default state folder of a run: the worker's, or the terminal's."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic.json_schema import SkipJsonSchema

HOME = "SDLORA_HOME"
DEFAULT_HOME = Path(".sdlora")

Home = SkipJsonSchema[Path | None]
"""A flow's parameter that no form shows: a run uses its worker's state folder."""


IN_HOME = "{home}/"
"""Beginning of a path below the state folder, in records that move with the folder."""


def relative_to_home(path: str, home: Path) -> str:
    """Replace the state folder at the beginning of a path by `IN_HOME`; other texts are returned unchanged."""
    prefix = f"{home.resolve()}/"
    return IN_HOME + path.removeprefix(prefix) if path.startswith(prefix) else path


def absolute_in_home(path: str, home: Path) -> str:
    """Return the path that `relative_to_home` was given, at the present place of the state folder."""
    return f"{home.resolve()}/{path.removeprefix(IN_HOME)}" if path.startswith(IN_HOME) else path


def state_folder(home: Path | None) -> Path:
    """Return `home`, else the folder that SDLORA_HOME names, else `.sdlora`, as an absolute path."""
    return (home or Path(os.environ.get(HOME) or DEFAULT_HOME)).resolve()
