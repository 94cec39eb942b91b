"""Settings of a style's trigger: how much news starts a run by itself, and how long it waits for more."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from sdlora.core.config_base import MAX_COUNT, SettingsSection


class TriggerConfig(SettingsSection):
    """Settings of the runs that new data starts while `sdlora up` runs; they change neither the adapter nor the run."""

    min_new_images: int | None = Field(
        None, ge=1, le=MAX_COUNT, description="new images that start a run by themselves; empty: no data starts a run"
    )
    quiet_minutes: float = Field(
        10.0, ge=0, le=24 * 60, description="minutes without further news before such a run starts"
    )
    max_wait_hours: float = Field(
        24.0, gt=0, le=24 * 366, description="hours after which fewer images, or ratings alone, start a run too"
    )
    poll_minutes: float = Field(
        60.0, gt=0, le=24 * 60 * 31, description="minutes between two looks at sources that cannot be watched"
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        # Equal to their defaults, the others stand in every written configuration.
        given = sorted(name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default)
        if self.min_new_images is None and given:
            raise ValueError(f"min_new_images is expected with {', '.join(given)}: without it, no data starts a run")
        return self

    @property
    def is_on(self) -> bool:
        return self.min_new_images is not None
