"""What all pages have in common: their templates, of which everything is escaped, and their style."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates() -> Environment:
    """The templates of this package. A name that a page was not given is an error, not an empty place."""
    return Environment(
        loader=PackageLoader("sdlora.release"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def style(environment: Environment, *names: str) -> str:
    """The style sheets of these names, one after the other."""
    assert environment.loader is not None
    return "".join(environment.loader.get_source(environment, name)[0] for name in names)
