"""Command `generate`: images drawn with an adapter or its base model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.choosing import line_of_adapters
from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption, StyleOption
from deployments.cli.stages import Stages
from deployments.cli.terminal import console, error_console, plain

# Bounds of the settings (`sdlora.core.config_base`), whose import would load pydantic for `sdlora --help`.
_MAX_SEED, _MAX_GUIDANCE_SCALE = 2**53 - 1, 1000.0


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw, in words.")],
    home: HomeOption = DEFAULT_HOME,
    version: Annotated[int | None, typer.Option(min=1, help="Draw with this version.")] = None,
    champion: Annotated[bool, typer.Option("--champion", help="Draw with the champion; this is the default.")] = False,
    base: Annotated[bool, typer.Option("--base", help="Draw with the bare base model.")] = False,
    style: StyleOption = None,
    seed: Annotated[int, typer.Option(min=0, max=_MAX_SEED, help="The same seed draws the same image.")] = 0,
    count: Annotated[int, typer.Option(min=1, max=256, help="How many images; seeds count up.")] = 1,
    steps: Annotated[int, typer.Option(min=1, max=200, help="Sampler steps.")] = 20,
    guidance_scale: Annotated[
        float,
        typer.Option(
            min=1, max=_MAX_GUIDANCE_SCALE, help="How strictly to follow the prompt (classifier-free guidance); 1: off."
        ),
    ] = 4.0,
    negative_prompt: Annotated[str, typer.Option(help="What to keep away from.")] = "",
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the PNG files.")] = Path("generated"),
    as_json: JsonOption = False,
) -> None:
    """Draw images and remember them in the image database. Each line is an image's id and file.

    Example: [bold]sdlora generate "a red car" --count 4 --seed 7 --steps 30 --guidance-scale 6[/]
    """
    if (version is not None) + champion + base > 1:
        raise typer.BadParameter("choose one of --version, --champion, --base")
    from deployments.local_run import prepare_environment
    from sdlora.core.files import require_writable

    name = line_of_adapters(home, style)
    require_writable(home, "--home")  # before the model is loaded and draws
    require_writable(out, "--out")
    prepare_environment(home)
    which = "base" if base else str(version) if version is not None else "champion"
    with error_console.status("Loading the model ..."):
        from tasks.drawing import Drawing, draw, find_model

        model = find_model(which, name, home)
    with Stages() as stages:
        drawing = Drawing(prompt, seed, count, steps, guidance_scale, negative_prompt)
        images = draw(model, drawing, out, home, on_progress=stages.on_progress)
    if as_json:
        settings = {key: value for key, value in asdict(drawing).items() if key not in ("seed", "count")}
        drawn = [{"sha256": image.sha256, "seed": image.seed, "path": str(image.path.resolve())} for image in images]
        print_json({"model": model.label, **settings, "images": drawn})
        return
    for image in images:
        console.print(plain(f"{image.sha256[:10]}  {image.path}"), soft_wrap=True)
