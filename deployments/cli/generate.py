"""Command `generate`: images drawn with an adapter or its base model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.options import DEFAULT_HOME, HomeOption
from deployments.cli.terminal import Stages, console


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw, in words.")],
    home: HomeOption = DEFAULT_HOME,
    version: Annotated[int | None, typer.Option(min=1, help="Draw with this version.")] = None,
    champion: Annotated[bool, typer.Option("--champion", help="Draw with the champion; this is the default.")] = False,
    base: Annotated[bool, typer.Option("--base", help="Draw with the bare base model.")] = False,
    name: Annotated[str | None, typer.Option(help="Line of adapters, if there are several.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same image.")] = 0,
    count: Annotated[int, typer.Option(min=1, max=256, help="How many images; seeds count up.")] = 1,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the PNG files.")] = Path("generated"),
) -> None:
    """Draw images and remember them in the image database.

    Example: [bold]sdlora generate "a red car" --count 4 --seed 7[/]
    """
    if (version is not None) + champion + base > 1:
        raise typer.BadParameter("choose one of --version, --champion, --base")
    from deployments.local_run import prepare_environment

    prepare_environment(home)
    which = "base" if base else str(version) if version is not None else "champion"
    with console.status("Loading the model ..."):
        from tasks.drawing import Drawing, draw, find_model

        model = find_model(which, name, home)
    with Stages() as stages:
        paths = draw(model, Drawing(prompt, seed, count), out, home, on_progress=stages.on_progress)
    for path in paths:
        console.print(str(path), markup=False, soft_wrap=True)
