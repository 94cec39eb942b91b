"""From captioned images to a base model of one's own."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from sdlora.artifacts import BaseModelRef
from sdlora.pretraining.plan import PretrainPlan
from tasks.alive import flow_run_alive
from tasks.collect import clean_images, collect_images
from tasks.lock import training_lock
from tasks.pretrain import pretrain_base_model
from tasks.snapshot import make_snapshot


@flow(name="pretrain", persist_result=False, validate_parameters=True)
def pretrain(plan: PretrainPlan = PretrainPlan(), home: Path = Path(".sdlora")) -> BaseModelRef:  # noqa: B008
    """Collect captioned images and train a Stable Diffusion on them from nothing. Takes hours; goes on if stopped.

    Args:
        plan: Which images, what to make of them, and with how many processes.
        home: The state folder.
    """
    home = home.resolve()
    with flow_run_alive(home), training_lock(home):
        collected = collect_images(plan.data, home)
        cleaned = clean_images(collected, plan.data, home)
        snapshot = make_snapshot(cleaned, plan.data, home)
        return pretrain_base_model(snapshot, plan, home)
