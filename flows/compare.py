"""Flow `compare`: LoRA, its variants and regular fine-tuning on the same images, seeds and budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from sdlora.config import resolve
from sdlora.records.comparison import Comparison
from sdlora.training.config import Preset
from sdlora.training.methods import TrainingMethod
from tasks.alive import flow_run_alive
from tasks.base import prepare_base_model
from tasks.budget import Equal, steps_of_equal_seconds, trial_config, with_training
from tasks.collect import clean_images, collect_images
from tasks.compare import compare_methods, encode_once, resolve_methods, train_method
from tasks.form import STYLE, Advanced, Count, LearningRate, Name
from tasks.home import Home, state_folder
from tasks.lock import CLEAN_UP_SECONDS, run_lock
from tasks.notify.failures import tell_failure
from tasks.pages.run_names import starting_name
from tasks.snapshot import make_snapshot
from tasks.waiting.queue import join_queue, training_slot


@flow(
    name="compare",
    flow_run_name=starting_name,
    persist_result=False,
    validate_parameters=True,
    on_failure=[tell_failure],
    on_crashed=[tell_failure],
)
def compare(
    name: Name = "style",
    sources: tuple[str, ...] = (),
    base_model: str = "embedded",
    preset: Preset = "standard",
    steps: Count = None,
    learning_rate: LearningRate = None,
    rank: Count = None,
    methods: Annotated[tuple[TrainingMethod, ...], Field(min_length=1)] = ("lora", "full"),
    full_learning_rate: LearningRate = None,
    neutral_prompts: tuple[str, ...] = (),
    equal: Equal = "steps",
    advanced: Advanced = {},  # noqa: B006  # never changed; Prefect's form shows it as an empty object
    home: Home = None,
) -> tuple[Comparison, Path]:
    """Train the same images with several methods, and show the quality and costs of each in a table and on a page.

    Nothing is published. An interrupted run continues where it stopped; finished trainings are not repeated.

    Args:
        name: Style whose images and settings all methods share.
        sources: Folders, archives, lists of URLs, datasets, addresses such as s3://bucket/folder.
        base_model: Model to train: embedded, a folder, a .safetensors file or a hub id.
        preset: Length of the training: small, standard or thorough.
        steps: Budget in optimiser steps; empty: the preset's.
        learning_rate: Peak rate of all methods but full; empty: the base model's default.
        rank: Size of the adapters; empty: the base model's default.
        methods: Training methods: lora, rslora, dora, loha, lokr, pissa; full trains all weights of the denoiser.
        full_learning_rate: Rate of full; empty: a tenth of learning_rate.
        neutral_prompts: Prompts of subjects that the base knows, to measure forgetting; empty: sixteen common subjects.
        equal: Budget that all methods share: the steps, or the seconds that the first method takes for them.
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
    with flow_run_alive(home), run_lock(home, CLEAN_UP_SECONDS):
        base = prepare_base_model(config.base_model, home)
        settings = resolve(config, base, home)
        settings_by_method = resolve_methods(methods, base, config, full_learning_rate, home)

        collected = collect_images(settings.data, home)
        cleaned = clean_images(collected, settings.data, home)
        snapshot = make_snapshot(cleaned, settings.data, home)

        with training_slot(join_queue(settings.name, "compare", home), home):
            encode_once(base, snapshot, settings, home)

            if equal == "seconds":
                trial = trial_config(config)
                trial_settings = resolve_methods(methods, base, trial, full_learning_rate, home)
                counts = steps_of_equal_seconds(
                    {method: method_settings.training.steps for method, method_settings in settings_by_method.items()},
                    lambda method: train_method(method, trial_settings[method], base, snapshot, trial.name, home),
                )
                for method, count in counts.items():
                    same_time = with_training(config, steps=count)
                    settings_by_method |= resolve_methods([method], base, same_time, full_learning_rate, home)
            contestants = {
                method: train_method(method, method_settings, base, snapshot, settings.name, home)
                for method, method_settings in settings_by_method.items()
            }
            return compare_methods(base, contestants, snapshot, settings, neutral_prompts, home)
