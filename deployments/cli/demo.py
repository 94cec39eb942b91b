"""Command `demo`: the whole loop with the bundled images."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.markup import escape

from deployments.cli.options import DEFAULT_HOME, DEMO_CONFIG, HomeOption, JsonOption
from deployments.cli.run import retrain
from deployments.cli.terminal import error_console, hint, verbosity

_STYLE = "high-contrast"  # the name in DEMO_CONFIG, of the style and its dataset


def demo(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Teach the embedded model a new style from the bundled images: the whole loop, offline, in minutes.

    A second run reports that nothing is new. An interrupted demo continues where it stopped.
    """
    if not (verbosity.quiet or (home / "runs" / _STYLE).exists()):
        # Measured on two idle cores; the processor's precision is probed and told when training starts.
        error_console.print("The whole loop: 1 to 2 minutes on two cores with bf16 instructions, 2 to 5 without.")
    retrain(DEMO_CONFIG, home, force=False, as_json=as_json)
    if not (as_json or verbosity.quiet):
        _print_next_steps(home)


def _print_next_steps(home: Path) -> None:
    from sdlora.assets import DEMO_LATER

    option = "" if home == DEFAULT_HOME else f" --home {home}"
    hint("\nNext:")
    if shutil.which("sdlora") is None:  # started by make
        hint("  [bold]. .venv/bin/activate[/]\n      [dim]once per terminal, so that it finds sdlora[/]")
    for command, meaning in (
        (
            f'sdlora generate "an emoji of tiger, animal"{option}',
            "draw with the champion (--base: without the adapter)",
        ),
        (f"sdlora images --rejected --dataset {_STYLE}{option}", "see which images were left out, and why"),
        (f"sdlora collect {DEMO_LATER} --dataset {_STYLE}{option}", "more images arrive ..."),
        (f"sdlora demo{option}", "... and a second adapter challenges the champion"),
        (f"sdlora new my-style --images ./my-images{option}", "the same for your own images"),
        (f"sdlora up{option}", "start runs and see versions in the browser"),
    ):
        hint(f"  [bold]{escape(command)}[/]\n      [dim]{meaning}[/]", soft_wrap=True)
