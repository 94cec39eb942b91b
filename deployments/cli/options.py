"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CONFIGS = Path(__file__).parent.parent / "configs"
DEMO_CONFIG = CONFIGS / "demo.yaml"

# The variable is read before the command alone (`app.py`), and its value handed down as the default: read here, too,
# it would win over an option that stands earlier.
HOME_VARIABLE = "SDLORA_HOME"
HomeOption = Annotated[
    Path,
    typer.Option("--home", help=f"State folder; everything sdlora knows lives in it. [env var: {HOME_VARIABLE}]"),
]
ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", help="YAML file with the settings. Default: those of the demo.", show_default=False),
]
DEFAULT_HOME = Path(".sdlora")
DATA_PAGE = Path("pages", "data.html")
"""The images as they are today, below the state folder; `tasks.data_page` names those of snapshots."""
