"""The state folder of a run that names none: the worker's, or the one that a terminal works in."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic.json_schema import SkipJsonSchema

HOME = "SDLORA_HOME"
DEFAULT_HOME = Path(".sdlora")

Home = SkipJsonSchema[Path | None]
"""A flow's parameter that no form shows: a run works where its worker does."""


def state_folder(home: Path | None) -> Path:
    """`home` in full; if none is given, what SDLORA_HOME names, else `.sdlora` in the current folder."""
    return (home or Path(os.environ.get(HOME) or DEFAULT_HOME)).resolve()
