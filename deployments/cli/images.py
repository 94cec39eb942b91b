"""`collect`: what goes into the image database."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.cli.loop import DEMO_CONFIG
from deployments.cli.options import DATA_PAGE, DEFAULT_HOME, ConfigOption, HomeOption
from deployments.cli.terminal import Stages, console


def collect(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Folders, or datasets saved to disk.")],
    home: HomeOption = DEFAULT_HOME,
    config: ConfigOption = DEMO_CONFIG,
) -> None:
    """Bring images into the database and judge each of them. What is known already costs nothing.

    Captions come from `name.txt` beside `name.png`, from `metadata.jsonl` or `metadata.csv`, else from the file name.
    """
    from sdlora.config import load_config
    from sdlora.data import clean
    from sdlora.data import collect as collect_source
    from sdlora.store import ImageStore

    settings = load_config(config).data
    with ImageStore.open(home) as store, Stages() as stages:
        before = store.counts()
        for source in sources:
            collect_source(store, source, settings, on_progress=stages.on_progress)
        cleaned = clean(store, settings, on_progress=stages.on_progress)
        counts = store.counts()
        page = home / DATA_PAGE
        if cleaned.decided or not page.is_file():  # nothing new is to cost nothing
            from sdlora.release import write_data_page

            write_data_page(store, settings, page, title="Images")
    new = counts.total - before.total
    console.print(f"{new} new, {counts.total} in all: {counts.accepted} accepted, {counts.rejected} rejected.")
    if counts.rejected:
        console.print("See why: [bold]sdlora images --rejected[/]")
    console.print(f"As a page: {page}", soft_wrap=True)
    console.print("Train on them: [bold]sdlora run[/]")
