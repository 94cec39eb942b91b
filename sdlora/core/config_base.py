"""Base class of configuration sections, and settings by dotted names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class FrozenConfig(BaseModel):
    """Immutable settings section: validated once at the entry point, unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested settings to dotted names, in order: {"lora": {"rank": 8}} -> {"lora.rank": 8}."""

    def walk(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in section.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    return dict(walk(settings, ""))
