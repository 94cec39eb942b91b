"""Flow `decide`: a candidate waits for a person's answer on Prefect's page, without a process and without a limit."""

from __future__ import annotations

from typing import Any

from prefect import flow, suspend_flow_run
from prefect.states import Completed

from sdlora.records.champions import Question
from tasks.alive import flow_run_alive
from tasks.decisions.question import ANSWER_KEY, PersonsAnswer, description_of, follow_up, record_answer, show_question
from tasks.home import Home, state_folder
from tasks.notify.failures import tell_failure


@flow(
    name="decide",
    persist_result=False,
    on_failure=[tell_failure],
    on_crashed=[tell_failure],
)
def decide(
    name: str,
    version: int,
    candidate_digest: str,
    duel_digest: str,
    champion_digest: str | None = None,
    home: Home = None,
) -> Any:
    """Ask a person whether a candidate becomes the champion. `retrain` starts these runs; start none by hand.

    The run is suspended: its process ends, and the answer starts another one, which runs this function from the top.

    Args:
        name: The style.
        version: Number of the candidate.
        candidate_digest: Adapter of the candidate.
        duel_digest: Duel that is decided on.
        champion_digest: Adapter of the champion; empty without one.
        home: The state folder; empty: the worker's.
    """
    home = state_folder(home)
    question = Question(name, version, candidate_digest, duel_digest, champion_digest)
    with flow_run_alive(home):
        void = show_question(question, home)
        if void is not None:
            return Completed(name="Void", message=void)
        form = PersonsAnswer.with_initial_data(description=description_of(question, home))
        answer = suspend_flow_run(wait_for_input=form, timeout=None, key=ANSWER_KEY)
        outcome = record_answer(question, answer, home)
        if isinstance(outcome, str):
            return Completed(name="Void", message=outcome)
        return follow_up(outcome, home)
