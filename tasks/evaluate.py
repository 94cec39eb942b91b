"""Stages 5 and 6: the duel and the gate's decision."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from sdlora.config import ResolvedConfig
from sdlora.core.errors import ConfigError
from sdlora.core.refs import AdapterRef, BaseModelRef, SnapshotRef
from sdlora.data.snapshot import load_snapshot
from sdlora.evaluation.config import GateConfig
from sdlora.evaluation.gate import decide as decide_by_rule
from sdlora.models.config import BaseModelConfig
from sdlora.records.decision import Decision
from sdlora.records.duel import Duel
from sdlora.store.image_store import ImageStore
from tasks.decisions.champion_reconciliation import reconcile_history, registered_opponent
from tasks.home import absolute_in_home
from tasks.pages.scores import score_lines
from tasks.progress import task_progress
from tasks.results import RunRef
from tasks.retries import RETRIED
from tasks.run_log import log_text, run_log
from tasks.tracking import Registry


@task(name="find champion", persist_result=False, **RETRIED)
def find_champion(name: str, base: BaseModelRef, run: RunRef, home: Path) -> AdapterRef | None:
    """Find the champion that the candidate has to beat; None if there is none.

    Raises:
        ConfigError: the champion was made for another base model, so the two cannot be compared.
    """
    registry = Registry(home)
    with ImageStore.open(home) as store:
        history = reconcile_history(registry, store, name)
    champion = registered_opponent(registry, history, run.digest)
    if champion is None:
        run_log().info("There is no champion yet: the candidate has to beat the base model")
        return None
    if champion.tags["base_digest"] != base.digest:
        source = BaseModelConfig.model_validate_json(champion.tags["base_model"]).source
        raise ConfigError(
            f"The champion of {name!r} (version {champion.number}) was made for the base model "
            f"{log_text(absolute_in_home(source, home))} ({champion.tags['base_digest'][:12]}), but base_model.source "
            f"is {log_text(base.name)} ({base.digest[:12]}). Adapters of two bases cannot be compared, so nothing was "
            "trained. Choose that base model again, or use another name for this style (setting: name) and name the "
            "dataset of its images (setting: data.dataset)."
        )
    run_log().info("The champion to beat is version %d", champion.number)
    return registry.fetch(champion, home)


@task(name="duel", persist_result=False, **RETRIED)  # the library reads a finished duel on the same inputs back
def run_duel(
    base: BaseModelRef,
    candidate: AdapterRef,
    champion: AdapterRef | None,
    snapshot: SnapshotRef,
    config: ResolvedConfig,
    run: RunRef,
    home: Path,
) -> Duel:
    """Score base, champion and candidate on the same prompts, seeds and held-out images.

    The duel of a published version stays as it is; another duel of this version has a folder of its own.

    Raises:
        TakedownError: an image of the snapshot was purged; the candidate is removed.
    """
    from sdlora.evaluation.contest import Contest
    from sdlora.evaluation.duel import duel_inputs_digest
    from sdlora.evaluation.duel import run_duel as score_contestants
    from sdlora.training.takedown import stopping_at_takedown

    version = Registry(home).find_by_run(config.name, run.digest)
    with ImageStore.open(home) as store:
        frozen = load_snapshot(store, snapshot.digest)
        with stopping_at_takedown(store, frozen, run.folder):
            contest = Contest(base, frozen, store, config.evaluation, task_progress())
            folder = run.evaluation
            if version is not None and version.published:
                folder = run.duel_folder(duel_inputs_digest(contest, candidate, champion))
            duel = score_contestants(contest, candidate, champion, folder)
    log = run_log()
    log.info("The duel on %d prompts of held-out images, values with their 95 %% interval:", len(duel.samples))
    for line in score_lines(duel):
        log.info("%s", line)
    return duel


@task(name="decide", persist_result=False)
def decide(duel: Duel, gate: GateConfig) -> Decision:
    """Ask the gate whether the candidate becomes the champion."""
    decision = decide_by_rule(duel, gate)
    log = run_log()
    outcome = "becomes the champion" if decision.promote else "does not become the champion"
    log.info(
        "The gate's answer: %s. The candidate %s", decision.answer, "waits for a person" if decision.waits else outcome
    )
    failed = "in doubt" if decision.answer == "cannot tell" else "failed"
    for check in decision.checks:
        log.info("%s: %s", "passed" if check.passed else failed, check.reason)
    told = {check.reason for check in decision.checks}
    for what_helps in (reason for reason in decision.reasons if reason not in told):
        log.info("%s", what_helps)
    return decision
