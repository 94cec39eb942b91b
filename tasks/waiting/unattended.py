"""Runs that no person asked for, and the reasons to leave a training alone until something changes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from prefect import task

from sdlora.config import PipelineConfig
from sdlora.core.errors import StorageError
from sdlora.core.refs import BaseModelRef, SnapshotRef
from sdlora.release.messages import given_up_message
from sdlora.store.image_store import ImageStore
from sdlora.store.style_records import (
    StyleRecord,
    forget_left_alone,
    record_dealt_with,
    record_left_alone,
    record_lesson,
    style_record,
)
from sdlora.store.tickets import MAX_FAILURES, Request, Ticket, cancelled_early, cancelled_ticket, failures_alike
from sdlora.training.identity import TRAINER_VERSION, lesson_digest
from tasks.notify.tell import tell
from tasks.results import RunRef
from tasks.settings_digest import settings_digest
from tasks.waiting.outcomes import record_skipped_run, request_of
from tasks.waiting.page_cancels import record_page_cancels


@task(name="ask whether to train", persist_result=False)
def leave_alone(
    config: PipelineConfig, base: BaseModelRef, snapshot: SnapshotRef, run: RunRef, force: bool, home: Path
) -> str | None:
    """Return the reason not to train; None if the run goes on. A person's run always does.

    The clock and new data leave a run alone that a person has cancelled, that failed several times alike, or that
    differs from the newest version's run by sdlora only. With `force`, only the first of these holds.

    Args:
        config: settings as typed.
    """
    if request_of(config.name, "retrain").asked_by == "person":
        with ImageStore.open(home) as store, store.write() as session:
            forget_left_alone(session, config.name)
        return None
    record_page_cancels(home, (config.name, run.digest))
    settings = settings_digest(config)
    with ImageStore.open(home) as store, store.read() as session:
        cancelled = cancelled_ticket(session, config.name, run.digest, settings)
        failures = failures_alike(session, config.name, run.digest, settings)
        record = style_record(session, config.name)
        early = cancelled_early(session, config.name, settings)
    if early and record.left_alone != (snapshot.inputs, settings):
        early = None
    if cancelled := cancelled or early:
        reason = f"a person cancelled this run, and no change of images or settings came since: {cancelled.reason}"
    elif not force and len(failures) >= MAX_FAILURES:
        reason = f"this run failed {len(failures)} times in the same way: {failures[0].reason}"
    elif (
        not force
        and record.lesson_digest == _lesson(config, base, snapshot)
        and (upgrade := _upgrade(record, run, config.name))
    ):
        record_skipped_run(config.name, run.digest, upgrade, home)
        _record_dealt_with(config.name, snapshot, home)
        return upgrade
    else:
        return None
    record_skipped_run(config.name, run.digest, reason, home)
    if snapshot.inputs is not None:
        with ImageStore.open(home) as store, store.write() as session:
            record_left_alone(session, config.name, snapshot.inputs, settings)
    return reason


@task(name="record what was learnt", persist_result=False)
def record_learnt(config: PipelineConfig, base: BaseModelRef, snapshot: SnapshotRef, run: RunRef, home: Path) -> None:
    """Record that a version exists for these images and settings, so that they are no news any more."""
    with ImageStore.open(home) as store, store.write() as session:
        record_lesson(session, config.name, _lesson(config, base, snapshot), run.digest, TRAINER_VERSION)
    _record_dealt_with(config.name, snapshot, home)


def tell_if_given_up(request: Request, home: Path) -> None:
    """Tell people of a run that is not tried again by itself, because it failed several times alike. Never raises."""
    if request.run_digest is None:
        return
    failures: list[Ticket] = []
    with suppress(StorageError), ImageStore.open(home) as store, store.read() as session:
        failures = failures_alike(session, request.style, request.run_digest, request.settings_digest)
    if len(failures) >= MAX_FAILURES:
        run, reason = (request.run_digest, request.settings_digest), failures[0].reason or ""
        tell(home, given_up_message(request.style, *run, len(failures), reason))


def _upgrade(record: StyleRecord, run: RunRef, style: str) -> str | None:
    if record.run_digest == run.digest:  # its version is gone, so it is made again
        return None
    what = "its defaults or its libraries"
    if record.trainer != TRAINER_VERSION:
        what = f"its training code, version {record.trainer} then and {TRAINER_VERSION} now"
    return (
        f"the images and the settings are those of the newest version, and only sdlora has changed ({what}). "
        f"Train again: sdlora run {style}"
    )


def _lesson(config: PipelineConfig, base: BaseModelRef, snapshot: SnapshotRef) -> str:
    return lesson_digest(base.digest, snapshot.training_digest, config.lora, config.training, base.quantize)


def _record_dealt_with(style: str, snapshot: SnapshotRef, home: Path) -> None:
    if snapshot.inputs is not None:
        with ImageStore.open(home) as store, store.write() as session:
            record_dealt_with(session, style, snapshot.inputs, snapshot.digest)
