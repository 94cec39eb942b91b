"""Command `checks`: the rules that an image has to pass."""

from __future__ import annotations

from dataclasses import asdict

from deployments.cli.choosing import data_settings, named_style
from deployments.cli.json_output import print_json
from deployments.cli.options import (
    DEFAULT_HOME,
    DatasetOption,
    HomeOption,
    JsonOption,
    StyleArgument,
    StyleFileOption,
)
from deployments.cli.stores import existing_store, has_store, only_dataset
from deployments.cli.terminal import console, hint, plain


def checks(
    style: StyleArgument = None,
    home: HomeOption = DEFAULT_HOME,
    config: StyleFileOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the checks: what each measures, its settings, and how many images it has rejected."""
    from rich.table import Table

    from deployments.styles.files import only_style, style_names
    from sdlora.data.check_list import list_checks

    chosen = named_style(home, style, config)
    name, counts = dataset, None
    if has_store(home):
        with existing_store(home) as store:
            name = dataset or only_dataset(store, chosen)
            counts = store.existing_dataset(name).counts() if name else None
    if name is None and chosen is None and style_names(home):
        chosen = named_style(home, only_style(home, "sdlora checks {}").stem)
    listed = list_checks(data_settings(home, chosen, name or ""))
    if as_json:
        by_check = counts.rejected_by if counts else {}
        print_json({"checks": [{**asdict(check), "rejected": by_check.get(check.name, 0)} for check in listed]})
        return
    table = Table(box=None, header_style="bold", expand=console.is_terminal)
    table.add_column("check", no_wrap=True)
    table.add_column("v", justify="right")
    table.add_column("settings (data.)", no_wrap=True)
    table.add_column("measures", ratio=1)
    if counts:
        table.add_column("rejected", justify="right")
    for check in listed:
        settings = "\n".join(f"{name} = {value}" for name, value in check.settings.items())
        rejected = [str(counts.rejected_by.get(check.name, 0))] if counts else []
        table.add_row(*map(plain, [check.name, check.version, settings, check.measures, *rejected]))
    console.print(table)
    hint("The first check that rejects an image gives the reason: [bold]sdlora images --rejected[/]")
