"""Default state folder of a run: the worker's, or the terminal's."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic.json_schema import SkipJsonSchema

HOME = "SDLORA_HOME"
DEFAULT_HOME = Path(".sdlora")

Home = SkipJsonSchema[Path | None]
"""A flow's parameter that no form shows: a run uses its worker's state folder."""


def state_folder(home: Path | None) -> Path:
    """Return `home`, else the folder that SDLORA_HOME names, else `.sdlora`, as an absolute path."""
    return (home or Path(os.environ.get(HOME) or DEFAULT_HOME)).resolve()
