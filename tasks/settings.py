"""Resolved settings of a run, which all stages read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import task

from sdlora.config import PipelineConfig, ResolvedConfig, resolve
from sdlora.core.refs import BaseModelRef
from sdlora.lora.config import ResolvedLora
from sdlora.training.config import ResolvedTraining


@task(name="resolve settings", persist_result=False)
def resolve_settings(config: PipelineConfig, base: BaseModelRef, home: Path) -> ResolvedConfig:
    """Fill empty settings and check all against the base model's settings files, without images and weights.

    Raises:
        SdloraError: a setting that cannot be trained, before any image is collected.
    """
    resolved = resolve(config, base, home)
    check_trainable(base, [(resolved.lora, resolved.training)])
    return resolved


def check_trainable(base: BaseModelRef, settings: Sequence[tuple[ResolvedLora | None, ResolvedTraining]]) -> None:
    """Check several methods before the first one trains, so that no method is refused after hours of training."""
    from sdlora.training.suitability import check_settings

    for lora, training in settings:
        check_settings(base, lora, training, training.num_processes)
