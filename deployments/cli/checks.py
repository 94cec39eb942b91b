"""Command `checks`: the rules that an image has to pass."""

from __future__ import annotations

from dataclasses import asdict

from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, DEMO_CONFIG, ConfigOption, DatasetOption, HomeOption, JsonOption
from deployments.cli.stores import choose_dataset, existing_store, has_store
from deployments.cli.terminal import console, hint, plain


def checks(
    home: HomeOption = DEFAULT_HOME,
    config: ConfigOption = DEMO_CONFIG,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the checks: what each measures, its settings, and how many images it has rejected."""
    from rich.table import Table

    from sdlora.config import load_config
    from sdlora.data.check_list import list_checks

    counts = None
    if has_store(home):
        with existing_store(home) as store:
            counts = choose_dataset(store, dataset).counts() if dataset or len(store.dataset_names()) == 1 else None
    listed = list_checks(load_config(config).data)
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
