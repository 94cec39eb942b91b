"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CONFIGS = Path(__file__).parent.parent / "configs"

HomeOption = Annotated[
    Path, typer.Option("--home", envvar="SDLORA_HOME", help="State folder; everything sdlora knows lives in it.")
]
ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", help="YAML file with the settings. Default: those of the demo.", show_default=False),
]
DEFAULT_HOME = Path(".sdlora")
DATA_PAGE = Path("pages", "data.html")
"""The images as they are today, below the state folder; `tasks.data_page` names those of snapshots."""
