"""Command `new`: a style of one's own images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from deployments.cli.terminal import console, hint, plain

if TYPE_CHECKING:
    from deployments.styles.few_images import Fitted
    from deployments.styles.new_style import Look
    from sdlora.config import PipelineConfig
    from sdlora.training.defaults import BaseTraits


def new(
    name: Annotated[str, typer.Argument(help="Name of the style: small letters, digits and hyphens.")],
    images: Annotated[
        list[str],
        typer.Option("--images", help="Folder, archive, list of URLs or address with the images; repeatable."),
    ],
    home: HomeOption = DEFAULT_HOME,
    base: Annotated[
        str, typer.Option("--base", help="embedded, a diffusers folder, a .safetensors file, or a hub id.")
    ] = "embedded",
    revision: Annotated[
        str | None, typer.Option("--revision", help="Commit that pins a hub id: 40 hexadecimal digits.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the file of a new style, to be edited, and look at its images. Nothing is collected yet.

    Example: [bold]sdlora new my-style --images ./my-images[/]
    """
    from deployments.styles.few_images import fitted_settings
    from deployments.styles.files import style_file
    from deployments.styles.new_style import look_at, write_style
    from sdlora.core.errors import ConfigError

    home = home.resolve()
    if style_file(home, name).exists():
        raise ConfigError(f"There is a style {name}: {style_file(home, name)}. Edit this file, or choose another name.")
    sources = [_absolute(source) for source in images]
    looks = [look_at(source) for source in sources]
    source = str(Path(base).expanduser().resolve()) if base != "embedded" and Path(base).expanduser().exists() else base
    traits = _traits(source, home)
    family = traits.family if traits else None
    counts = [look.images for look in looks]
    count = None if None in counts else sum(filter(None, counts))
    fitted = fitted_settings(count, traits is not None and traits.is_small)
    config = write_style(home, name, sources, source, revision, fitted)
    if as_json:
        facts = {"name": name, "path": style_file(home, name), "sources": looks, "base_model": source}
        print_json({**facts, "family": family, "fitted": fitted, "free_bytes": shutil.disk_usage(home).free})
    else:
        _print(config, looks, family, fitted, home)


def _absolute(source: str) -> str:
    """Return a path as an absolute one; the file lies in the state folder. An address and an empty text stay."""
    if not source or ":" in source.split("/", 1)[0]:
        return source
    return str(Path(source).expanduser().resolve())


def _traits(source: str, home: Path) -> BaseTraits | None:
    """Return the traits of a base model on this machine, after a check of its files; None for a hub id."""
    from sdlora.models.config import BaseModelConfig
    from sdlora.models.files.sources import load_base_model
    from sdlora.training.defaults import BaseTraits

    is_local = source == "embedded" or Path(source).is_dir()
    if not is_local and not Path(source).suffix and not source.startswith(("/", ".", "~")):
        return None  # a download of gigabytes, left to the first run
    return BaseTraits.of(load_base_model(BaseModelConfig(source=source), home))


def _print(
    config: PipelineConfig, looks: list[Look], family: str | None, fitted: tuple[Fitted, ...], home: Path
) -> None:
    from deployments.styles.files import style_file

    console.print(plain(f"Style {config.name}: {style_file(home, config.name)}"), soft_wrap=True)
    for look in looks:
        console.print(plain(f"  {look.source}: {_look_text(look)}"), soft_wrap=True)
    console.print(
        plain(f"  base model: {config.base_model.source}, {family or 'loaded by the first run'}"), soft_wrap=True
    )
    for one in fitted:
        console.print(plain(f"  {one.setting}: {one.value}, {one.why}"), soft_wrap=True)
    size = sum(look.byte_size for look in looks)
    is_counted = all(look.images is not None for look in looks)
    free = shutil.disk_usage(home).free
    needed = (
        f"{size / 2**20:,.0f} MiB for a copy of the images" if is_counted else "unknown until the images are collected"
    )
    console.print(f"  disk: {needed}; adapters and checkpoints come on top; {free / 2**30:,.0f} GiB are free")
    console.print("  time: unknown until the first run, which shows the time left after a few steps")
    option = "" if home == DEFAULT_HOME.resolve() else f" --home {home}"
    hint(
        f"Next: [bold]sdlora run {config.name}{option}[/]\n      [dim]edit the file before, if you like[/]",
        soft_wrap=True,
    )


def _look_text(look: Look) -> str:
    if look.images is None:
        return "counted by the first run"
    text = f"{look.images:,} images, {look.byte_size / 2**20:,.1f} MiB"
    if look.smallest_px is not None:
        text += f"; of {look.opened} looked at, the smallest is {look.smallest_px} px on its short side"
    if look.unreadable:
        text += f"; {len(look.unreadable)} of {look.opened} looked at are no images: {', '.join(look.unreadable[:3])}"
    return text
