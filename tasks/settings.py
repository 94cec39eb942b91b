"""Before anything else: whether the settings can be trained, so that a wrong one costs seconds and not hours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import task

from sdlora.artifacts import BaseModelRef
from sdlora.config import PipelineConfig
from sdlora.lora import LoraConfig
from sdlora.training import TrainingConfig, settle, settle_lora


@task(name="check settings", persist_result=False)
def check_run_settings(base: BaseModelRef, config: PipelineConfig, home: Path) -> None:
    """Check the adapter and its training against the base model's settings files; reads no image and no weights."""
    training = settle(base, config.training, home)
    check_ways(base, [(settle_lora(base, config.lora), training)])


def check_ways(base: BaseModelRef, ways: Sequence[tuple[LoraConfig | None, TrainingConfig]]) -> None:
    """Check several ways to train at once: the last would else be refused when all others are done."""
    from sdlora.training.suitability import check_settings

    for lora, training in ways:
        check_settings(base, lora, training, training.num_processes)
