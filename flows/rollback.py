"""Flow `rollback`: an earlier version is the champion again."""

from __future__ import annotations

from prefect import flow

from tasks.alive import flow_run_alive
from tasks.decisions.promotion import ChampionDecision, roll_back_champion
from tasks.decisions.question import follow_up
from tasks.form import Number, Text
from tasks.home import Home, state_folder
from tasks.pages.run_names import starting_name


@flow(name="rollback", flow_run_name=starting_name, persist_result=False)
def rollback(name: str, to: Number = None, who: Text = "", why: Text = "", home: Home = None) -> ChampionDecision:
    """Make an earlier version the champion again, and export it if the style says so.

    Args:
        name: The style.
        to: Number of the version; empty: the champion before this one.
        who: Who decides, as it is to be recorded.
        why: The reason, kept with the decision.
        home: The state folder; empty: the worker's.
    """
    home = state_folder(home)
    with flow_run_alive(home):
        return follow_up(roll_back_champion(name, to, who, why, home), home)
