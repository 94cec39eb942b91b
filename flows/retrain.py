"""The loop: from new images to a published adapter."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from sdlora.config import PipelineConfig
from tasks.base import prepare_base_model
from tasks.collect import clean_images, collect_images
from tasks.evaluate import decide, fight_duel, find_champion
from tasks.identify import find_release, identify_run
from tasks.lock import training_lock
from tasks.publish import publish
from tasks.results import Release
from tasks.run_names import starting_name
from tasks.settings import check_run_settings
from tasks.snapshot import make_snapshot
from tasks.train import fine_tune_adapter


@flow(name="retrain", flow_run_name=starting_name, persist_result=False, validate_parameters=True)
def retrain(config: PipelineConfig, home: Path = Path(".sdlora"), force: bool = False) -> Release:
    """Collect new images, fine-tune an adapter on them, and publish it with its evidence.

    Ends early if an adapter was already made from the same images with the same settings.

    Args:
        config: What to learn from and how.
        home: The state folder.
        force: Score and decide again although nothing is new. Nothing is trained twice.
    """
    home = home.resolve()
    with training_lock(home):
        base = prepare_base_model(config.base_model, home)
        check_run_settings(base, config, home)

        collected = collect_images(config.data, home)
        cleaned = clean_images(collected, config.data, home)
        snapshot = make_snapshot(cleaned, config.data, home)

        run = identify_run(base, snapshot, config, home)
        known = None if force else find_release(run, config.name, home)
        if known:
            return known

        champion = find_champion(config.name, base, run, home)
        candidate = fine_tune_adapter(base, snapshot, config, run, home)
        duel = fight_duel(base, candidate, champion, snapshot, config.evaluation, run, home)
        decision = decide(duel, config.gate)
        return publish(base, candidate, snapshot, duel, decision, config, run, home)
