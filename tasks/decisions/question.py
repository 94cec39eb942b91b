"""Questions to people on Prefect's pages: a suspended run of the deployment `decide` for each candidate that waits.

A question has the digests of everything that the answer is about. It is open as long as the champion history has the
same question; any other answer is void. Where no Prefect server has the deployment, such as in a terminal before the
first `sdlora up`, a person decides by `sdlora promote` and `sdlora reject` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.input import RunInput
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled
from pydantic import Field

from sdlora.core.errors import EvaluationError
from sdlora.core.files import json_digest
from sdlora.records.champions import ChampionHistory, Question
from sdlora.store.champions import champion_history
from sdlora.store.image_store import ImageStore
from tasks.decisions.champion_reconciliation import reconcile_history
from tasks.decisions.promotion import UNNAMED, ChampionDecision, promote_version, reject_version, show_decision
from tasks.decisions.standing import why_void
from tasks.form import MAX_TEXT_CHARS
from tasks.notify.decisions import tell_decisions
from tasks.pages.markdown import markdown_code, markdown_text
from tasks.pages.run_page import inline_image
from tasks.results import Release
from tasks.run_log import run_log
from tasks.tracking import Registry, version_page

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

DEPLOYMENT = "decide/decide"
ANSWER_KEY = "answer"
"""Name of the suspension in the record of the run."""
PICTURE = "before-after.png"
_MAX_ATTEMPTS = 10
"""Runs for one question; a further one is made only after the one before failed or crashed."""


class PersonsAnswer(RunInput):
    """Form of the answer on Prefect's page."""

    decision: Literal["approve", "reject"]
    name: str = Field("", max_length=MAX_TEXT_CHARS)
    why: str = Field("", max_length=MAX_TEXT_CHARS)


@task(name="ask a person", persist_result=False)
def ask_person(release: Release, home: Path) -> Release:
    """Create the run that asks about the candidate that waits, and end the runs of questions that are not open.

    The same question is asked once. A server that does not answer is a warning: the commands remain.
    """
    _ask_or_warn(release.name, home)
    return release


@task(name="follow up", persist_result=False)
def follow_up(decision: ChampionDecision, home: Path) -> ChampionDecision:
    """End the runs of questions that are not open any more after a decision, and tell people."""
    follow_decision(decision.style, home)
    return decision


def follow_decision(style: str, home: Path) -> None:
    """Do what `follow_up` does, also without a flow."""
    _ask_or_warn(style, home)
    tell_decisions(style, home)


def _ask_or_warn(style: str, home: Path) -> None:
    with ImageStore.open(home) as store, store.read() as session:
        history = champion_history(session, style)
    try:
        ask(history)
    except Exception:  # whatever the client raises; what was published or decided stays
        log = run_log()
        log.warning("Prefect's page does not show the questions about %s as they are", style, exc_info=True)


def ask(history: ChampionHistory) -> None:
    """Bring the runs of the deployment `decide` and the question of a style into agreement."""
    if not PREFECT_API_URL.value():  # without a server, Prefect would start one
        return
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            return
        question = history.question
        _end_void_runs(client, str(deployment.id), history)
        if question is None:
            return
        # The same candidate may wait again after a champion came and went, and a run may have failed with its answer.
        waiting = history.waiting
        asked = {**asdict(question), "entry": waiting.number if waiting else None}
        for attempt in range(_MAX_ATTEMPTS):
            run = client.create_flow_run_from_deployment(
                deployment.id,
                parameters=parameters_of(question),
                name=f"{question.style} version {question.version}: a person decides",
                idempotency_key=json_digest({**asked, "attempt": attempt}),
            )
            if run.state is None or run.state.type not in (StateType.FAILED, StateType.CRASHED):
                break
        run_log().info("A person decides on Prefect's page: %s", run.name)


def parameters_of(question: Question) -> dict[str, Any]:
    """Return the question as parameters of the flow `decide`."""
    return {
        "name": question.style,
        "version": question.version,
        "candidate_digest": question.candidate_digest,
        "duel_digest": question.duel_digest,
        "champion_digest": question.champion_digest,
    }


def _end_void_runs(client: SyncPrefectClient, deployment_id: str, history: ChampionHistory) -> None:
    """Cancel the runs of the style's questions that are not open any more; a run in progress ends by itself."""
    states = {"type": {"any_": [StateType.PAUSED, StateType.SCHEDULED]}}
    runs = FlowRunFilter.model_validate({"state": states, "deployment_id": {"any_": [deployment_id]}})
    for run in client.read_flow_runs(flow_run_filter=runs):
        asked = _question_of(run)
        if asked is None or asked.style != history.style or asked == history.question or _is_answered(run):
            continue
        message = f"Void: {why_void(history, asked)}."
        client.set_flow_run_state(run.id, Cancelled(message=message), force=True)
        run_log().info("The question on %s version %d is void", asked.style, asked.version)


def _is_answered(run: FlowRun) -> bool:
    """Return True if a person has answered and the run waits for its process, which then says what became of it."""
    is_scheduled = run.state is not None and run.state.type == StateType.SCHEDULED
    return is_scheduled and ANSWER_KEY in (run.empirical_policy.pause_keys or ())


def _question_of(run: FlowRun) -> Question | None:
    parameters: Mapping[str, Any] = run.parameters
    with suppress(KeyError):
        return Question(
            style=parameters["name"],
            version=parameters["version"],
            candidate_digest=parameters["candidate_digest"],
            duel_digest=parameters["duel_digest"],
            champion_digest=parameters.get("champion_digest"),
        )
    return None


@task(name="show the question", persist_result=False)
def show_question(question: Question, home: Path) -> str | None:
    """Put the evidence on the page of the run; return why the question is void, None if it is open."""
    with ImageStore.open(home) as store:
        history = reconcile_history(Registry(home), store, question.style)
    if question != history.question:
        return show_void(question, why_void(history, question))
    context = FlowRunContext.get()
    if context and context.flow_run and ANSWER_KEY in (context.flow_run.empirical_policy.pause_keys or ()):
        return None  # the run starts again with the answer, and its page has the evidence
    create_markdown_artifact(
        "\n\n".join([description_of(question, home), *_picture(history, question, home)]),
        key="question",
        description=f"{question.style} version {question.version} waits for a decision",
    )
    return None


def description_of(question: Question, home: Path) -> str:
    """Describe the question as markdown, for the form and the page of the run: reasons, and links to the evidence."""
    with ImageStore.open(home) as store, store.read() as session:
        history = champion_history(session, question.style)
    waiting = history.waiting
    reasons = waiting.why.splitlines() if waiting else []
    answer = f" The gate's answer: {waiting.answer}." if waiting and waiting.answer else ""
    champion = history.champion
    state = f"The champion is version {champion.number}." if champion else "There is no champion yet."
    subject = f"{markdown_text(question.style)} version {question.version}"
    lines = [
        f"**Does {subject} become the champion?** {state}{answer}",
        "\n".join(f"- {markdown_text(reason)}" for reason in reasons),
        _links(history, question, home),
        "The name is recorded as it is written: all users of this page have one password.",
    ]
    return "\n\n".join(line for line in lines if line)


def _links(history: ChampionHistory, question: Question, home: Path) -> str:
    page, run = version_page(question.style, question.version), _run_folder(history, home)
    if page:
        return f"[Pictures, scores and report in MLflow]({page})"
    files = (run / "evaluation" / PICTURE, run / "release" / "report.html") if run else ()
    return "\n".join(f"- {markdown_code(file)}" for file in files if file.is_file())


def _picture(history: ChampionHistory, question: Question, home: Path) -> list[str]:
    run = _run_folder(history, home)
    picture = run / "evaluation" / PICTURE if run else None
    return [inline_image(picture, "Base model, and with the adapter")] if picture and picture.is_file() else []


def _run_folder(history: ChampionHistory, home: Path) -> Path | None:
    waiting = history.waiting
    digest = waiting.version.run_digest if waiting else None
    return home / "runs" / history.style / digest[:16] if digest else None


@task(name="record the answer", persist_result=False)
def record_answer(question: Question, answer: PersonsAnswer, home: Path) -> ChampionDecision | str:
    """Promote or reject the candidate; return why the answer is void if the question is not open any more."""
    decide = promote_version if answer.decision == "approve" else reject_version
    who = answer.name.strip() or UNNAMED
    try:
        decision = decide(question.style, question.version, who, answer.why.strip(), home, question)
    except EvaluationError as error:
        return show_void(question, str(error))
    return show_decision(decision)


def show_void(question: Question, reason: str) -> str:
    """Put on the page of the run why the question is void, and return the reason."""
    title = f"Void: {question.style} version {question.version}"
    create_markdown_artifact(f"## {markdown_text(title)}\n\n{markdown_text(reason)}", key="decision", description=title)
    run_log().info("%s: %s", title, reason)
    return reason
