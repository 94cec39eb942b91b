"""The settings of a run: from a form to a configuration, and from that to the one thing that all stages read."""

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
    """Fill what is empty, and check it against the base model's settings files; reads no image and no weights.

    Raises:
        SdloraError: a setting that cannot be trained, found before anything is collected.
    """
    resolved = resolve(config, base, home)
    check_trainable(base, [(resolved.lora, resolved.training)])
    return resolved


def check_trainable(base: BaseModelRef, settings: Sequence[tuple[ResolvedLora | None, ResolvedTraining]]) -> None:
    """Check several ways to train at once: the last would else be refused when all others are done."""
    from sdlora.training.suitability import check_settings

    for lora, training in settings:
        check_settings(base, lora, training, training.num_processes)
