"""Shared parts of all pages: templates, which escape every value, style sheets, and tiles with headline numbers."""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates() -> Environment:
    """Create the environment of this package's templates; an undefined name is an error."""
    return Environment(
        loader=PackageLoader("sdlora.release"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def style(environment: Environment, *names: str) -> str:
    """Join the style sheets of these names."""
    assert environment.loader is not None
    return "".join(environment.loader.get_source(environment, name)[0] for name in names)


@dataclass(frozen=True)
class Tile:
    """Headline number with its label and detail."""

    label: str
    value: str
    detail: str
