"""LoRA against regular fine-tuning, and against its variants: the same images, seeds and budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from prefect import flow
from pydantic import Field

from sdlora.comparison import Comparison
from sdlora.config import PipelineConfig
from tasks.alive import flow_run_alive
from tasks.base import prepare_base_model
from tasks.budget import Equal, steps_of_equal_seconds, with_steps
from tasks.collect import clean_images, collect_images
from tasks.compare import Way, check_all_ways, compare_trained, encode_once, train_one_way
from tasks.lock import training_lock
from tasks.snapshot import make_snapshot

if TYPE_CHECKING:
    from sdlora.evaluation.comparing import Trained


@flow(name="compare", persist_result=False, validate_parameters=True)
def compare(
    config: PipelineConfig,
    methods: Annotated[tuple[Way, ...], Field(min_length=1)] = ("lora", "full"),
    full_learning_rate: Annotated[float | None, Field(gt=0)] = None,
    neutral_prompts: tuple[str, ...] = (),
    home: Path = Path(".sdlora"),
    equal: Equal = "steps",
) -> tuple[Comparison, Path]:
    """Train the same images in several ways and show what each gives and costs, as one table and one page.

    Nothing is published. Interrupted, it goes on where it stopped; what was trained before is not trained again.

    Args:
        config: The images, the base model, and the settings that all share. The budget is training.steps.
        methods: Ways to train: lora, rslora, dora, loha, lokr, pissa; full trains all weights of the denoiser.
        full_learning_rate: Rate of full; empty: a tenth of training.learning_rate.
        neutral_prompts: What the base knew before; empty: sixteen common subjects.
        home: The state folder.
        equal: What is the same for all: training.steps, or the seconds that these take the first of the ways.
    """
    home = home.resolve()
    with flow_run_alive(home), training_lock(home):
        base = prepare_base_model(config.base_model, home)
        check_all_ways(methods, base, config, full_learning_rate, home)
        collected = collect_images(config.data, home)
        cleaned = clean_images(collected, config.data, home)
        snapshot = make_snapshot(cleaned, config.data, home)
        encode_once(base, snapshot, config, home)

        def train(way: str, settings: PipelineConfig) -> Trained:
            return train_one_way(way, base, snapshot, settings, full_learning_rate, home)

        steps = dict.fromkeys(map(str, methods), config.training.steps)
        if equal == "seconds":
            steps = steps_of_equal_seconds(list(steps), config, train)
        trained = {
            way: train(way, with_steps(config, count) if equal == "seconds" else config) for way, count in steps.items()
        }
        return compare_trained(base, trained, snapshot, config, neutral_prompts, home)
