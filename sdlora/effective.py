"""The settings that a run has in the end, and where each comes from."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sdlora.artifacts import BaseModelRef
from sdlora.config import PipelineConfig
from sdlora.models.families.layouts import find_layout
from sdlora.training.config import TrainingConfig
from sdlora.training.presets import family_preset, settle


@dataclass(frozen=True)
class Setting:
    """One setting as it will be used.

    Attributes:
        name: dotted, as in the file.
        value: after everything that was left empty has been filled.
        origin: "flag", "file", "family ...", "preset ...", "measured" or "default".
        meaning: its description.
    """

    name: str
    value: Any
    origin: str
    meaning: str


def effective_settings(
    config: PipelineConfig, base: BaseModelRef, home: Path, flags: Collection[str] = ()
) -> list[Setting]:
    """All settings in the order of the form, those of training settled for the base model.

    Args:
        config: as read from the file and the flags.
        base: the base model that it names.
        home: the state folder, which remembers what was measured.
        flags: dotted names given on the command line.

    Raises:
        WeightsError: the base model's settings files are damaged.
    """
    from sdlora.models import parts

    training = settle(base, config.training, home)
    family = find_layout(base.folder).name
    of_family = family_preset(base, parts.native_resolution(base), config.training)

    def origin(section: BaseModel, prefix: str, name: str) -> str:
        if prefix + name in flags:
            return "flag"
        if name in section.model_fields_set and getattr(section, name) != ():
            return "file"
        if section is not config.training:
            return "default"
        if name in of_family:
            return f"family {family}"
        if name == "precision":
            return "measured"
        return f"preset {config.training.preset}" if name in _of_preset(config.training) else "default"

    def walk(section: BaseModel, shown: BaseModel, prefix: str) -> Iterator[Setting]:
        for name, field in type(section).model_fields.items():
            value = getattr(section, name)
            if isinstance(value, BaseModel):
                yield from walk(value, training if value is config.training else value, f"{prefix}{name}.")
            else:
                where = origin(section, prefix, name)
                yield Setting(prefix + name, getattr(shown, name), where, field.description or "")

    return list(walk(config, config, ""))


def _of_preset(training: TrainingConfig) -> set[str]:
    """What another preset would have filled in differently."""
    given = {name: getattr(training, name) for name in training.model_fields_set - {"preset"}}
    variants = [TrainingConfig.model_validate({**given, "preset": preset}) for preset in ("small", "thorough")]
    return {name for name in TrainingConfig.model_fields if getattr(variants[0], name) != getattr(variants[1], name)}
