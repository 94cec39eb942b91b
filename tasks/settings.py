"""Resolved settings of a run, which all stages read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import task

from sdlora.config import PipelineConfig, ResolvedConfig, resolve
from sdlora.core.refs import BaseModelRef
from sdlora.lora.config import ResolvedLora
from sdlora.store.image_store import ImageStore
from sdlora.store.style_records import record_precision
from sdlora.training.checked_settings import check_settings_once
from sdlora.training.config import ResolvedTraining


@task(name="resolve settings", persist_result=False)
def resolve_settings(config: PipelineConfig, base: BaseModelRef, home: Path) -> ResolvedConfig:
    """Fill empty settings and check all against the base model's settings files, without images and weights.

    The first run of a style records its precision, which later runs take for `auto`.

    Raises:
        SdloraError: a setting that cannot be trained, before any image is collected.
    """
    resolved = resolve(config, base, home)
    check_trainable(base, [(resolved.lora, resolved.training)], home)
    if config.training.precision != "auto":
        return resolved
    with ImageStore.open(home) as store, store.write() as session:
        precision = record_precision(session, config.name, resolved.training.precision)
    # Of two first runs at once, the second takes the choice of the first.
    return resolved.model_copy(update={"training": resolved.training.model_copy(update={"precision": precision})})


def check_trainable(
    base: BaseModelRef, settings: Sequence[tuple[ResolvedLora | None, ResolvedTraining]], home: Path
) -> None:
    """Check several methods before the first one trains, so that no method is refused after hours of training."""
    for lora, training in settings:
        check_settings_once(base, lora, training, home)
