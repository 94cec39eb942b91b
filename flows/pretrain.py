"""Flow `pretrain`: a base model from captioned images."""

from __future__ import annotations

from prefect import flow

from sdlora.core.refs import BaseModelRef
from sdlora.data.config import resolve_data
from tasks.alive import flow_run_alive
from tasks.collect import clean_images, collect_images
from tasks.form import PLAN, AdvancedPlan, Count, Name
from tasks.home import Home, state_folder
from tasks.lock import CLEAN_UP_SECONDS, run_lock
from tasks.notify.failures import tell_failure
from tasks.pages.run_names import starting_name
from tasks.pretrain import pretrain_base_model
from tasks.snapshot import make_snapshot
from tasks.waiting.queue import join_queue, training_slot


@flow(
    name="pretrain",
    flow_run_name=starting_name,
    persist_result=False,
    validate_parameters=True,
    on_failure=[tell_failure],
    on_crashed=[tell_failure],
)
def pretrain(
    name: Name = "base",
    sources: tuple[str, ...] = (),
    resolution: Count = None,
    processes: Count = None,
    advanced: AdvancedPlan = {},  # noqa: B006  # never changed; Prefect's form shows it as an empty object
    home: Home = None,
) -> BaseModelRef:
    """Collect captioned images and train a Stable Diffusion from nothing. Takes hours; a stopped run can continue.

    Args:
        name: The base model: names its folder and its experiment.
        sources: Folders, archives, lists of URLs, datasets, addresses such as s3://bucket/folder.
        resolution: Side of the square images in pixels; empty: 64.
        processes: Processes that share each batch; empty: one.
        advanced: All other settings, by section and key as in a plan's file.
        home: The state folder; empty: the worker's.
    """
    home = state_folder(home)
    plan = PLAN.config(advanced, name=name, sources=sources, resolution=resolution, processes=processes)
    data = resolve_data(plan.data, plan.name)
    with flow_run_alive(home), run_lock(home, CLEAN_UP_SECONDS):
        collected = collect_images(data, home)
        cleaned = clean_images(collected, data, home)
        snapshot = make_snapshot(cleaned, data, home)
        with training_slot(join_queue(plan.name, "pretrain", home), home):
            return pretrain_base_model(snapshot, plan, home)
