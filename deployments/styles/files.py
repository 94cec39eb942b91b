"""Styles of a state folder: one YAML file each, `styles/NAME.yaml`.

A style that is given by `--config FILE` may be anywhere. The demo's style is part of sdlora and in no folder.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from deployments.environment import DEMO_CONFIG
from sdlora.config import PipelineConfig, load_config
from sdlora.core.errors import ConfigError
from sdlora.core.quoting import escaped

FOLDER = "styles"
SUFFIX = ".yaml"
DEMO_STYLE = "high-contrast"
"""Name of the demo's style; no file of a state folder may have it."""
ANY_STYLE = "retrain"
"""Name of the deployment for any style, which no style may have."""


@dataclass(frozen=True)
class Style:
    """Style of a state folder.

    Attributes:
        name: name of the file, which is the name of the style.
        config: settings in the file; None if the file is broken.
        problem: reason why the style cannot run; None for a style that can.
    """

    name: str
    file: Path
    config: PipelineConfig | None = None
    problem: str | None = None


def style_file(home: Path, name: str) -> Path:
    """Return the path of the file of a style, whether there is one or not."""
    return home / FOLDER / f"{name}{SUFFIX}"


def load_styles(home: Path) -> list[Style]:
    """Read all styles of the state folder, sorted by name; a broken file has a problem and stops no other."""
    return [_load(file) for file in _files(home)]


def load_style(home: Path, name: str) -> Style:
    """Read the style of this name, in the state folder or the demo's; a missing or broken file is its problem."""
    if name == DEMO_STYLE:
        return Style(name, DEMO_CONFIG, load_config(DEMO_CONFIG))
    file = style_file(home, name)
    if file.exists():
        return _load(file)
    problem = f"There is no {file}. If the style is in another file, type: sdlora run --config FILE"
    return Style(name, file, problem=problem)


def style_of_file(file: Path, name: str) -> Style:
    """Read the file of a style anywhere; one that is broken has the given name."""
    try:
        config = load_config(file)
    except ConfigError as error:
        return Style(name, file, problem=str(error))
    return Style(config.name, file, config)


def style_names(home: Path) -> list[str]:
    """List the names of the styles of the state folder, sorted, without reading the files."""
    return [file.stem for file in _files(home)]


def find_style(home: Path, name: str) -> Path:
    """Return the file of the style of this name, in the state folder or the demo's.

    Raises:
        ConfigError: there is no such style (with the nearest names), or its file is broken.
    """
    if name == DEMO_STYLE:
        return DEMO_CONFIG
    if name not in style_names(home):
        names = [*style_names(home), DEMO_STYLE]
        nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        remedy = f"Nearest: {', '.join(nearest)}." if nearest else f"There are: {', '.join(names)}."
        raise ConfigError(
            f"There is no style {escaped(name)!r} in {home / FOLDER}. {remedy} Make one: "
            "sdlora new NAME --images FOLDER"
        )
    return _without_problem(_load(style_file(home, name)))


def only_style(home: Path, example: str) -> Path:
    """Return the file of the only style of the state folder.

    Args:
        example: what to type for one style, for the message that asks for one; `{}` stands for its name.

    Raises:
        ConfigError: there is none, there are several, or the file is broken.
    """
    names = style_names(home)
    if not names:
        raise ConfigError(
            f"No styles yet in {home / FOLDER}. Make one of your own images: sdlora new NAME --images FOLDER. "
            "To see the loop on the bundled images: sdlora demo"
        )
    if len(names) > 1:
        raise ConfigError(
            f"There are several styles: {', '.join(names)}. Name one, such as `{example.format(names[0])}`."
        )
    return find_style(home, names[0])


def refuse_second_style(home: Path, config_file: Path, config: PipelineConfig) -> None:
    """Raise `ConfigError` if `config_file` has the name of another style of the state folder."""
    own = style_file(home, config.name)
    if own.exists() and not own.samefile(config_file):
        raise ConfigError(
            f"name: {escaped(str(config_file))} and {own} are two styles of the name {config.name}. Their versions and "
            f"champions would mix. Give one of the two another name, or type: sdlora run {config.name}"
        )


def _files(home: Path) -> list[Path]:
    return sorted(path for path in (home / FOLDER).glob(f"*{SUFFIX}") if not path.name.startswith("."))


def _load(file: Path) -> Style:
    name = file.stem
    style = style_of_file(file, name)
    problem = style.problem
    if name == DEMO_STYLE:
        problem = f"{file}: {name} is the name of the demo's style. Give the file and `name` in it another one."
    elif not problem and style.name != name:
        problem = (
            f"{file}: name: found {style.name}, expected {name}, the name of the file. Change `name`, or rename the "
            "file."
        )
    return Style(name, file, style.config, problem)


def _without_problem(style: Style) -> Path:
    if style.problem:
        raise ConfigError(style.problem)
    return style.file
