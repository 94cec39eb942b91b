"""Flow `promote`: a person makes a version the champion."""

from __future__ import annotations

from prefect import flow

from tasks.alive import flow_run_alive
from tasks.decisions.promotion import ChampionDecision, promote_candidate
from tasks.decisions.question import follow_up
from tasks.form import Number, Text
from tasks.home import Home, state_folder
from tasks.pages.run_names import starting_name


@flow(name="promote", flow_run_name=starting_name, persist_result=False)
def promote(name: str, version: Number = None, who: Text = "", why: Text = "", home: Home = None) -> ChampionDecision:
    """Make a version the champion, and export it if the style says so.

    Args:
        name: The style.
        version: Number of the version; empty: the one that waits for a decision.
        who: Who decides, as it is to be recorded.
        why: The reason, kept with the decision.
        home: The state folder; empty: the worker's.
    """
    home = state_folder(home)
    with flow_run_alive(home):
        return follow_up(promote_candidate(name, version, who, why, home), home)
