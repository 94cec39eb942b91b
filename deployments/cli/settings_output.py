"""Output of `sdlora run --show-config`: every setting with its value and origin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from deployments.cli.terminal import plain

if TYPE_CHECKING:
    from sdlora.config import Setting


def settings_table(settings: Sequence[Setting]) -> Table:
    """Build a table of every setting with its value and origin."""
    table = Table(title="value and origin of every setting", title_justify="left", title_style="dim")
    for column in ("setting", "value", "from"):
        table.add_column(column, overflow="fold")
    for setting in settings:
        is_given = setting.origin in ("file", "flag")
        cells = (setting.name, _value_text(setting.value), setting.origin)
        table.add_row(*map(plain, cells), style="bold" if is_given else "")
    return table


def _value_text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
