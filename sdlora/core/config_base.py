"""The base of every configuration section, and settings by their dotted names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class FrozenConfig(BaseModel):
    """A settings section: validated once where it enters, unknown keys refused, never changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by dotted names, in order: {"lora": {"rank": 8}} -> {"lora.rank": 8}."""

    def walk(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in section.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    return dict(walk(settings, ""))
