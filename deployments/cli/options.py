"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments import environment

DEMO_CONFIG = environment.DEMO_CONFIG

# Only the option before the command (`app.py`) reads the variable and passes its value down as the default. Read here,
# too, the variable would override an option before the command.
HOME_VARIABLE = "SDLORA_HOME"
HomeOption = Annotated[
    Path,
    typer.Option("--home", help=f"State folder; everything sdlora knows lives in it. [env var: {HOME_VARIABLE}]"),
]
ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", help="YAML file with the settings. Default: those of the demo.", show_default=False),
]
StyleOption = Annotated[
    str | None, typer.Option("--style", "-s", metavar="NAME", help="The style. Needed where there are several.")
]
StyleOfDatasetOption = Annotated[
    str | None, typer.Option("--style", "-s", metavar="NAME", help="The style whose dataset and settings are meant.")
]
StyleArgument = Annotated[
    str | None, typer.Argument(metavar="STYLE", help="The style. Needed where there are several.")
]
StyleFileOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="YAML file of a style that is not in the state folder."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only results, warnings and errors: no progress, no advice.")
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Also the log lines of what runs.")]
DatasetOption = Annotated[
    str | None,
    typer.Option("--dataset", "-d", metavar="NAME", help="The dataset. Needed where there are several."),
]
DEFAULT_HOME = Path(".sdlora")


def data_page(home: Path, dataset: str) -> Path:
    """Return the path of the page of a dataset's images of today; `tasks.pages.data_page` names those of snapshots."""
    return home / "pages" / dataset / "data.html"
