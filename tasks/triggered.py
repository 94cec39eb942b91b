"""Styles whose new data start runs, and the decisions about them; imports nothing of Prefect."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from sdlora.config import PipelineConfig
from sdlora.store.readiness import Readiness, TriggeredStyle, readiness
from tasks.settings_digest import settings_digest


def triggered_styles(configs: Iterable[PipelineConfig]) -> list[TriggeredStyle]:
    """Return the styles whose new data start runs."""
    return [
        TriggeredStyle(
            name=config.name,
            dataset=config.data.dataset or config.name,
            trigger=config.trigger,
            schedule=config.schedule,
            min_images=config.data.min_train_images + config.data.min_held_out_images,
            settings_digest=settings_digest(config),
        )
        for config in configs
        if config.trigger.is_on
    ]


def decisions(session: Session, configs: Iterable[PipelineConfig]) -> dict[str, Readiness]:
    """Decide about all styles with a trigger, without starting anything; by the name of the style."""
    now = datetime.now(UTC)
    return {style.name: readiness(session, style, now) for style in triggered_styles(configs)}
