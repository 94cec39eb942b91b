"""Flow `reject`: a person declines the version that waits."""

from __future__ import annotations

from prefect import flow

from tasks.alive import flow_run_alive
from tasks.decisions.promotion import ChampionDecision, reject_candidate
from tasks.decisions.question import follow_up
from tasks.form import Number, Text
from tasks.home import Home, state_folder
from tasks.pages.run_names import starting_name


@flow(name="reject", flow_run_name=starting_name, persist_result=False)
def reject(name: str, version: Number = None, who: Text = "", why: Text = "", home: Home = None) -> ChampionDecision:
    """Decline the version that waits for a decision. It stays a candidate, and the champion stays.

    Args:
        name: The style.
        version: Number of the version; empty: the one that waits for a decision.
        who: Who decides, as it is to be recorded.
        why: The reason, kept with the decision.
        home: The state folder; empty: the worker's.
    """
    home = state_folder(home)
    with flow_run_alive(home):
        return follow_up(reject_candidate(name, version, who, why, home), home)
