"""From captioned images to a base model of one's own."""

from __future__ import annotations

from prefect import flow

from sdlora.artifacts import BaseModelRef
from sdlora.pretraining.plan import PretrainPlan
from tasks.alive import flow_run_alive
from tasks.collect import clean_images, collect_images
from tasks.home import Home, state_folder
from tasks.lock import training_lock
from tasks.pretrain import pretrain_base_model
from tasks.run_names import starting_name
from tasks.snapshot import make_snapshot


@flow(name="pretrain", flow_run_name=starting_name, persist_result=False, validate_parameters=True)
def pretrain(plan: PretrainPlan = PretrainPlan(), home: Home = None) -> BaseModelRef:  # noqa: B008
    """Collect captioned images and train a Stable Diffusion on them from nothing. Takes hours; goes on if stopped.

    Args:
        plan: Which images, what to make of them, and with how many processes.
        home: The state folder; empty: the worker's.
    """
    home = state_folder(home)
    with flow_run_alive(home), training_lock(home):
        collected = collect_images(plan.data, home)
        cleaned = clean_images(collected, plan.data, home)
        snapshot = make_snapshot(cleaned, plan.data, home)
        return pretrain_base_model(snapshot, plan, home)
