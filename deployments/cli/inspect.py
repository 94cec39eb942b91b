"""Command `inspect`: facts about an adapter's file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from deployments.cli.terminal import console, plain
from sdlora.core.printable import escape_controls

if TYPE_CHECKING:
    from sdlora.lora.formats.inspect import AdapterFacts

Key = TypeVar("Key")


def inspect(
    file: Annotated[Path, typer.Argument(help="A LoRA's .safetensors file, or an adapter's folder.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Describe any LoRA file: method, rank, scale, family, base, words, training, hashes, and what is wrong with it.

    The exit status is 1 if something is wrong, such as numbers that are not finite or layers that are missing.

    Example: [bold]sdlora inspect downloaded.safetensors[/]
    """
    from sdlora.lora.formats.inspect import inspect_adapter

    facts = inspect_adapter(file)
    if as_json:
        print_json(facts_object(facts))
    else:
        print_facts(facts)
    if facts.problems:
        raise typer.Exit(1)


def facts_object(facts: AdapterFacts) -> dict[str, object]:
    """Return the facts under fixed keys; counts by rank and by scale become lists, the most frequent first."""
    return {
        **asdict(facts),
        "ranks": [{"rank": rank, "layer_count": count} for rank, count in _most_frequent(facts.ranks)],
        "scales": [{"scale": scale, "layer_count": count} for scale, count in _most_frequent(facts.scales)],
        "layers": [{"part": part, "layer_count": count} for part, count in _most_frequent(facts.layers)],
        "origin": {_key(label): value for label, value in facts.origin.items()},
        "hashes": {_key(label): value for label, value in facts.hashes.items()},
    }


def print_facts(facts: AdapterFacts) -> None:
    """Print the facts as a table of two columns."""
    from rich.table import Table

    rows = {
        "file": f"{facts.file}, {facts.size_bytes / 1e6:.1f} MB, {facts.layout} format",
        "family": facts.family,
        "method": facts.method,
        "rank": _counted({("whole" if rank == 0 else str(rank)): count for rank, count in facts.ranks.items()}),
        "alpha": ", ".join(f"{alpha:g}" for alpha in facts.alphas) or "not given",
        "effective scale": _counted({f"{scale:g}": count for scale, count in facts.scales.items()}),
        "layers": ", ".join(f"{count} of {model_part}" for model_part, count in facts.layers.items()),
        "numbers": f"{facts.parameters:,} in {', '.join(facts.precisions)}",
        "words": ", ".join(facts.words) or "not given",
        **facts.origin,
        **facts.hashes,
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows.items():
        # Other people's text: never markup, and a line break in a title cannot pass for another row.
        table.add_row(label, plain(escape_controls(value, keep="")))
    console.print(table)
    for note in facts.notes:
        console.print(plain(f"Note: {note}"), soft_wrap=True)
    for problem in facts.problems:
        console.print(plain(f"Problem: {problem}"), style="red", soft_wrap=True)


def _counted(counts: dict[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{value} ({count} layers)" for value, count in _most_frequent(counts))


def _most_frequent(counts: Mapping[Key, int]) -> list[tuple[Key, int]]:
    return sorted(counts.items(), key=lambda item: -item[1])


def _key(label: str) -> str:
    """Return the key of a label: "base model" is base_model, "SHA-256" is sha256."""
    return label.lower().replace("sha-", "sha").replace(" ", "_")
