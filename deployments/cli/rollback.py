"""Command `rollback`: an earlier version is the champion again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.champion_output import WhoOption, WhyOption, decide, print_decision
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption

if TYPE_CHECKING:
    from tasks.decisions.promotion import ChampionDecision


def rollback(
    name: Annotated[str, typer.Argument(help="The style.")],
    to: Annotated[
        int | None, typer.Option("--to", min=1, help="The version; by default the champion before this one.")
    ] = None,
    who: WhoOption = None,
    why: WhyOption = "",
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Make an earlier version the champion again, whatever its duel was, and export it if the style says so.

    The next version is judged against it. Example: [bold]sdlora rollback my-style[/]
    """
    home = home.resolve()

    def decision(person: str) -> ChampionDecision:
        from tasks.decisions.promotion import roll_back

        return roll_back(name, to, person, why, home)

    print_decision(decide(home, who, decision), as_json)
