"""Style that a command is about: the named one, one in a file elsewhere, or the only one of the state folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from deployments.cli.stores import dataset_of

if TYPE_CHECKING:
    from deployments.styles.files import Style
    from sdlora.config import PipelineConfig
    from sdlora.data.config import DataConfig


def style_path(home: Path, style: str | None, config: Path | None, example: str) -> Path:
    """Return the file of the style; without a name and a file, of the only style.

    Args:
        example: the command with a name, for the message that asks for one; `{}` stands for the name.

    Raises:
        ConfigError: there is no such style, none was named and there are several or none, or the file is broken.
    """
    from deployments.styles.files import find_style, only_style

    if style is not None and config is not None:
        raise typer.BadParameter("name a style, or give --config, only one of them.")
    if config is not None:
        return config
    return only_style(home, example) if style is None else find_style(home, style)


def named_style(home: Path, style: str | None, config: Path | None = None) -> PipelineConfig | None:
    """Return the style that was named or given as a file; None if neither was.

    Raises:
        ConfigError: there is no such style, or the file is broken.
    """
    from sdlora.config import load_config

    return load_config(style_path(home, style, config, "")) if style is not None or config is not None else None


def named_dataset(home: Path, dataset: str | None, style: str | None) -> str | None:
    """Return the name of the dataset that was named, by itself or by a style that learns from it.

    Raises:
        ConfigError: there is no such style, or its file is broken.
    """
    return dataset or dataset_of(named_style(home, style))


def data_settings(home: Path, style: PipelineConfig | None, dataset: str) -> DataConfig:
    """Return the settings that judge the images of a dataset.

    They are those of the given style, else of the style that learns from the dataset, else the defaults.

    Raises:
        ConfigError: none was given, and several styles with different settings learn from the dataset, or the file
            of the style that has the dataset's name is broken.
    """
    from deployments.styles.files import DEMO_STYLE, load_style, load_styles
    from sdlora.core.errors import ConfigError
    from sdlora.data.config import DataConfig

    if style is not None:
        return style.data
    styles = [*load_styles(home), load_style(home, DEMO_STYLE)]
    if problem := next((found.problem for found in styles if found.problem and found.name == dataset), None):
        raise ConfigError(problem)
    learning = [found.config for found in styles if dataset_of(found.config) == dataset and not found.problem]
    settings = [_judging(config.data) for config in learning if config]
    if any(other != settings[0] for other in settings):
        names = ", ".join(config.name for config in learning if config)
        raise ConfigError(
            f"Styles with different settings learn from the dataset {dataset}: {names}. Name one with --style."
        )
    return settings[0] if settings else DataConfig()


def learning_from(home: Path, dataset: str) -> list[Style]:
    """List the styles of the state folder, and the demo's, that learn from a dataset of this name, made or not."""
    from deployments.styles.files import DEMO_STYLE, load_style, load_styles

    styles = [*load_styles(home), load_style(home, DEMO_STYLE)]
    return [style for style in styles if style.config and dataset_of(style.config) == dataset]


def _judging(data: DataConfig) -> DataConfig:
    """Return the settings without those of places, which judge nothing."""
    return data.model_copy(update={"sources": (), "dataset": None, "mirror_sources": False})


def line_of_adapters(home: Path, style: str | None) -> str | None:
    """Return the name of the style whose versions are meant; None if the state folder has no styles.

    Raises:
        ConfigError: none was named and there are several.
    """
    from deployments.styles.files import only_style, style_names

    if style is None and style_names(home):
        return only_style(home, "--style {}").stem
    return style
