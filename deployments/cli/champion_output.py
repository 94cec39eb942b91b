"""Options and output of the commands with which people decide: promote, reject, rollback."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.images import account_name
from deployments.cli.json_output import print_json
from deployments.cli.terminal import console, error_console, hint, plain

if TYPE_CHECKING:
    from tasks.decisions.promotion import ChampionDecision

WhoOption = Annotated[str | None, typer.Option("--who", "--by", help="Who decides. Default: the name of the account.")]
WhyOption = Annotated[str, typer.Option("--why", help="The reason, kept with the decision.")]


def decide(home: Path, who: str | None, decision: Callable[[str], ChampionDecision]) -> ChampionDecision:
    """Call `decision` with the name of the person, with this process prepared for the state folder."""
    from deployments.local_run import prepare_environment
    from deployments.servers.credentials import credentials_of
    from deployments.servers.running import running_services

    prepare_environment(home)
    running = running_services(home)
    if running and "PREFECT_API_URL" not in os.environ:  # before Prefect is imported, which reads the variables once
        os.environ.update(credentials_of(home).for_prefect_clients())
        os.environ["PREFECT_API_URL"] = f"{running['prefect']}/api"
    with error_console.status("Looking at the versions ..."):
        decided = decision(who or account_name())
        if (
            running
        ):  # else the next run of the style tells people, and a question on Prefect's page says that it is void
            from tasks.decisions.question import follow_decision

            follow_decision(decided.style, home)
    return decided


def style_that_waits(home: Path, name: str | None, version: int | None, command: str) -> str:
    """Return the named style; without a name the only one with a version that waits for a decision.

    Args:
        version: version that was typed, which needs the name of its style.
        command: what to type for one style, without its name.

    Raises:
        ConfigError: no style was named, and none or several have a version that waits.
        DataError: there are no images in the state folder.
    """
    if name is not None:
        return name
    if version is not None:
        raise typer.BadParameter(f"name the style of version {version}: sdlora {command} NAME --version {version}")
    from deployments.cli.stores import existing_store
    from sdlora.core.errors import ConfigError
    from sdlora.store.champions import waiting_versions

    with existing_store(home) as store, store.read() as session:
        waiting = waiting_versions(session)
    if len(waiting) != 1:
        listed = ", ".join(f"{style} version {number}" for style, number in waiting.items())
        raise ConfigError(
            f"Several versions wait for a decision: {listed}. Name one, such as `sdlora {command} {min(waiting)}`."
            if waiting
            else f"No version waits for a decision in {home}. `sdlora versions` lists them all, and `sdlora {command} "
            "NAME --version N` names one."
        )
    ((style, number),) = waiting.items()
    error_console.print(plain(f"Version {number} of {style} is the only one that waits for a decision."))
    return style


def print_decision(decision: ChampionDecision, as_json: bool) -> None:
    """Print what was decided, and what follows."""
    if as_json:
        print_json(_object(decision))
        return
    from deployments.cli.run_output import print_export

    name, champion = decision.style, decision.champion
    if decision.kind == "rejected":
        stays = f"version {champion} stays the champion" if champion is not None else "there is no champion yet"
        console.print(plain(f"{name} version {decision.version} is rejected; {stays}."), soft_wrap=True)
    else:
        before = decision.champion_before
        text = f"{name} version {decision.version} is the champion"
        text += f"; before, it was version {before}." if before is not None else "; before, there was none."
        console.print(plain(text), style="green", soft_wrap=True)
        print_export(decision.export)
        if before is not None:
            hint(f"Take it back: [bold]sdlora rollback {name} --to {before}[/]")
    hint(f"All decisions: [bold]sdlora versions {name} --history[/]")


def _object(decision: ChampionDecision) -> dict[str, object]:
    export = decision.export
    return {
        "style": decision.style,
        "version": decision.version,
        "decision": decision.kind,
        "champion": decision.champion,
        "champion_before": decision.champion_before,
        "decided_by": decision.who,
        "why": decision.why,
        "decided_at": decision.decided_at,
        "exported_to": export.file if export and not export.problem else None,
        "export_problem": export.problem if export else None,
    }
