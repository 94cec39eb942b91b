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
from sdlora.training.presets import family_preset, lora_preset, settle, settle_lora


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


def settled_config(config: PipelineConfig, base: BaseModelRef, home: Path) -> PipelineConfig:
    """The configuration with everything filled in that was left empty, as it suits the base model.

    Raises:
        WeightsError: the base model's settings files are damaged.
    """
    filled = {"training": settle(base, config.training, home), "lora": settle_lora(base, config.lora)}
    return config.model_copy(update=filled)


def effective_settings(
    config: PipelineConfig, base: BaseModelRef, home: Path, flags: Collection[str] = ()
) -> list[Setting]:
    """All settings in the order of the form, those of training and of the adapter settled for the base model.

    Args:
        config: as read from the file and the flags.
        base: the base model that it names.
        home: the state folder, which remembers what was measured.
        flags: dotted names given on the command line.

    Raises:
        WeightsError: the base model's settings files are damaged.
    """
    from sdlora.models import parts

    settled = settled_config(config, base, home)
    family = find_layout(base.folder).name
    side_px = parts.native_resolution(base)
    of_family = {
        *(f"training.{name}" for name in family_preset(base, side_px, config.training)),
        *(f"lora.{name}" for name in lora_preset(base, side_px)),
    }

    def origin(section: BaseModel, prefix: str, name: str) -> str:
        if prefix + name in flags:
            return "flag"
        if name in section.model_fields_set and getattr(section, name) != ():
            return "file"
        if prefix + name in of_family:
            return f"family {family}"
        if section is not config.training:
            return "default"
        if name == "precision":
            return "measured"
        return f"preset {config.training.preset}" if name in _of_preset(config.training) else "default"

    def walk(section: BaseModel, shown: BaseModel, prefix: str) -> Iterator[Setting]:
        for name, field in type(section).model_fields.items():
            value = getattr(section, name)
            if isinstance(value, BaseModel):
                yield from walk(value, getattr(shown, name), f"{prefix}{name}.")
            else:
                where = origin(section, prefix, name)
                yield Setting(prefix + name, getattr(shown, name), where, field.description or "")

    return list(walk(config, settled, ""))


def _of_preset(training: TrainingConfig) -> set[str]:
    """What another preset would have filled in differently."""
    given = {name: getattr(training, name) for name in training.model_fields_set - {"preset"}}
    variants = [TrainingConfig.model_validate({**given, "preset": preset}) for preset in ("small", "thorough")]
    return {name for name in TrainingConfig.model_fields if getattr(variants[0], name) != getattr(variants[1], name)}
