"""Command `inspect`: facts about an adapter's file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.options import DEFAULT_HOME, HomeOption
from deployments.cli.terminal import console

if TYPE_CHECKING:
    from sdlora.lora.formats.inspect import AdapterFacts


def inspect(
    file: Annotated[Path, typer.Argument(help="A LoRA's .safetensors file, or an adapter's folder.")],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Describe any LoRA file: method, rank, scale, family, base, words, training, hashes.

    Example: [bold]sdlora inspect downloaded.safetensors[/]
    """
    from sdlora.lora.formats.inspect import inspect_adapter

    print_facts(inspect_adapter(file))


def print_facts(facts: AdapterFacts) -> None:
    """Print the facts as a table of two columns."""
    from rich.table import Table
    from rich.text import Text

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
        table.add_row(label, Text(value))  # other people's text: never markup
    console.print(table)
    for note in facts.notes:
        console.print(Text(f"Note: {note}"))


def _counted(counts: dict[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{value} ({count} layers)" for value, count in sorted(counts.items(), key=lambda item: -item[1]))
