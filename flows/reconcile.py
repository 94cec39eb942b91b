"""Flow `reconcile`: whatever was missed is made good, by the clock."""

from __future__ import annotations

from prefect import flow

from tasks.alive import flow_run_alive
from tasks.home import Home, state_folder
from tasks.notify.failures import tell_failure
from tasks.pages.run_names import starting_name
from tasks.reconcile import clear_up, end_dead_runs, repair_aliases, start_what_is_ready


@flow(
    name="reconcile",
    flow_run_name=starting_name,
    persist_result=False,
    on_failure=[tell_failure],
    on_crashed=[tell_failure],
)
def reconcile(home: Home = None) -> list[str]:
    """Mark dead runs, follow champions that moved in MLflow, start what is ready, and delete what retention lists.

    Each part works alone: one that fails is logged and stops no other. Nothing here depends on a message that could
    be lost.

    Args:
        home: The state folder; empty: the worker's.
    """
    home = state_folder(home)
    with flow_run_alive(home):
        found = end_dead_runs(home)
        found += start_what_is_ready(home)
        found += repair_aliases(home)
        found += clear_up(home)
    return found
