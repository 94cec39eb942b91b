"""Flow `retrain`, the loop from new images to a published adapter."""

from __future__ import annotations

from prefect import flow

from sdlora.training.config import Preset
from tasks.alive import flow_run_alive
from tasks.base import prepare_base_model
from tasks.collect import clean_images, collect_images
from tasks.decisions.question import ask_person
from tasks.evaluate import decide, find_champion, run_duel
from tasks.export import export_champion
from tasks.form import STYLE, Advanced, Count, LearningRate, Name
from tasks.home import Home, state_folder
from tasks.identify import find_release, identify_run
from tasks.lock import CLEAN_UP_SECONDS, run_lock
from tasks.notify.decisions import notify_decisions
from tasks.notify.failures import tell_failure
from tasks.pages.run_names import starting_name
from tasks.publish import publish
from tasks.results import Release
from tasks.settings import resolve_settings
from tasks.snapshot import make_snapshot
from tasks.train import fine_tune_adapter
from tasks.waiting.daily_limit import DailyLimitError
from tasks.waiting.outcomes import ending_recorded, record_skipped_run
from tasks.waiting.queue import join_queue_for_run, training_slot
from tasks.waiting.skipping import OutsideHoursError, continued_tomorrow, outside_window, skipped
from tasks.waiting.unattended import leave_alone, record_learnt


@flow(
    name="retrain",
    flow_run_name=starting_name,
    persist_result=False,
    validate_parameters=True,
    on_failure=[tell_failure],
    on_crashed=[tell_failure],
)
def retrain(
    name: Name = "style",
    sources: tuple[str, ...] = (),
    base_model: str = "embedded",
    preset: Preset = "standard",
    steps: Count = None,
    learning_rate: LearningRate = None,
    rank: Count = None,
    force: bool = False,
    advanced: Advanced = {},  # noqa: B006  # never changed; Prefect's form shows it as an empty object
    home: Home = None,
) -> Release:
    """Collect new images, fine-tune an adapter on them, and publish it with its evidence.

    Ends early if an adapter was already made from the same training images with the same settings. A run that has to
    train waits in the queue for a device. A run that no person asked for ends as skipped outside the hours of
    `schedule.window`, if a person cancelled the same run, if the same run failed three times alike, and if only sdlora
    is newer than the last version.

    Args:
        name: The style: names the adapter in files, in the registry and in the experiment list.
        sources: Folders, archives, lists of URLs, datasets, addresses such as s3://bucket/folder.
        base_model: What the adapter attaches to: embedded, a folder, a .safetensors file or a hub id.
        preset: How long to train: small, standard or thorough.
        steps: Optimiser steps; empty: the preset's.
        learning_rate: Peak rate; empty: what suits the base model.
        rank: Size of the adapter; empty: what suits the base model.
        force: Score and decide again although nothing is new. Nothing is trained twice.
        advanced: All other settings, by section and key as in a style's file.
        home: The state folder; empty: the worker's.
    """
    home = state_folder(home)
    config = STYLE.config(
        advanced,
        name=name,
        sources=sources,
        base_model=base_model,
        preset=preset,
        steps=steps,
        learning_rate=learning_rate,
        rank=rank,
    )
    if reason := outside_window(config.schedule):
        record_skipped_run(config.name, None, reason, home)
        return skipped(reason)
    with flow_run_alive(home), run_lock(home, CLEAN_UP_SECONDS), ending_recorded(config, home):
        base = prepare_base_model(config.base_model, home)
        settings = resolve_settings(config, base, home)

        collected = collect_images(settings.data, home)
        cleaned = clean_images(collected, settings.data, home)
        snapshot = make_snapshot(cleaned, settings.data, home)

        run = identify_run(base, snapshot, settings, home)
        release = find_release(run, snapshot, settings.name, home)
        if release is None or force:
            if reason := leave_alone(config, base, snapshot, run, force, home):
                return skipped(reason)
            ticket = join_queue_for_run(config, run, home)
            if isinstance(ticket, str):
                return skipped(ticket)
            try:
                with training_slot(ticket, home, settings.schedule):
                    # An equal run may have ended between the first look and the queue.
                    release = None if force else find_release(run, snapshot, settings.name, home)
                    if release is None:
                        champion = find_champion(settings.name, base, run, home)
                        candidate = fine_tune_adapter(base, snapshot, settings, run, home)
                        duel = run_duel(base, candidate, champion, snapshot, settings, run, home)
                        decision = decide(duel, settings.gate)
                        release = publish(base, candidate, snapshot, duel, decision, settings, run, home)
            except OutsideHoursError as error:
                return skipped(str(error))
            except DailyLimitError as error:
                return continued_tomorrow(str(error))
        else:
            record_skipped_run(settings.name, run.digest, "nothing new", home)
        record_learnt(config, base, snapshot, run, home)
        release = ask_person(export_champion(release, settings, home), home)
        notify_decisions(release, home)
        return release
