"""Command `reject`: a person declines the version that waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.champion_output import WhoOption, WhyOption, decide, print_decision, style_that_waits
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption

if TYPE_CHECKING:
    from tasks.decisions.promotion import ChampionDecision


def reject(
    name: Annotated[
        str | None, typer.Argument(help="The style; by default the only one with a version that waits.")
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="The version; by default the one that waits for a decision.")
    ] = None,
    who: WhoOption = None,
    why: WhyOption = "",
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Decline the version that waits for a decision. It stays a candidate with its evidence, the champion stays.

    Example: [bold]sdlora reject my-style --why "too smooth"[/]
    """
    home = home.resolve()
    style = style_that_waits(home, name, version, "reject")

    def decision(person: str) -> ChampionDecision:
        from tasks.decisions.promotion import reject_version

        return reject_version(style, version, person, why, home)

    print_decision(decide(home, who, decision), as_json)
