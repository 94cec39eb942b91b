"""JSON of the command line: one object per command, for programs. docs/command-line.md lists the keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import typer


def print_json(result: Mapping[str, object]) -> None:
    """Print a result as one JSON object.

    Values may be dataclasses, settings, dates (as ISO 8601), paths and numbers; a number that JSON lacks is null. The
    text is ASCII: a caption cannot move the terminal's cursor, and no program has to guess the encoding.
    """
    from pydantic import TypeAdapter

    value: dict[str, Any] = TypeAdapter(Any).dump_python(dict(result), mode="json")
    # Scores keep NaN for their own files.
    value = json.loads(json.dumps(value), parse_constant=lambda name: None)
    typer.echo(json.dumps(value, indent=2, allow_nan=False))
