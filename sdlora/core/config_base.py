"""The base of every configuration section."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FrozenConfig(BaseModel):
    """A settings section: validated once where it enters, unknown keys refused, never changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid")
