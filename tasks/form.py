"""A style's file as the parameters of a run, and back: what a form, a schedule and a typed command have in common.

The parameters that people use are flat; all other settings are in `advanced`, by the file's own sections and keys.
Whatever the file leaves empty is in neither, so that it is empty for every way to start a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import WithJsonSchema

from sdlora.config import NAME_PATTERN, PipelineConfig, parse_settings, without_empty
from sdlora.errors import ConfigError

SECTIONS = ("data", "base_model", "lora", "training", "evaluation", "gate")

# The form of Prefect's page and the check of its server follow the JSON schema: `int | None` would become a choice of
# types, where an empty box is meant. In Python the values go to `config_of`, which refuses them in our own words.
Name = Annotated[str, WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
Steps = Annotated[int | None, WithJsonSchema({"type": "integer", "minimum": 1})]
LearningRate = Annotated[float | None, WithJsonSchema({"type": "number", "exclusiveMinimum": 0})]
Rank = Annotated[int | None, WithJsonSchema({"type": "integer", "minimum": 1})]
Advanced = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"enum": list(SECTIONS)},
            "additionalProperties": {"type": ["object", "null"]},
        }
    ),
]

FLAT: Mapping[str, tuple[str, ...]] = {
    "name": ("name",),
    "sources": ("data", "sources"),
    "base_model": ("base_model", "source"),
    "preset": ("training", "preset"),
    "steps": ("training", "steps"),
    "learning_rate": ("training", "learning_rate"),
    "rank": ("lora", "rank"),
}
"""Where each flat parameter stands in the file."""


def parameters_of(config: PipelineConfig) -> dict[str, Any]:
    """The parameters that say what the file says, and nothing that it leaves empty."""
    advanced = without_empty(config.model_dump(mode="json", exclude_unset=True), PipelineConfig)
    flat = {}
    for parameter, (*sections, key) in FLAT.items():
        values = advanced
        for section in sections:
            values = values.get(section, {})
        if key in values:
            flat[parameter] = values.pop(key)
    advanced.pop("name", None)
    rest = {section: values for section, values in advanced.items() if values}
    return {**flat, "advanced": rest} if rest else flat


def config_of(advanced: Mapping[str, Any], **flat: Any) -> PipelineConfig:
    """The configuration that the parameters of a run describe.

    Args:
        advanced: settings by section and key.
        flat: values of `FLAT`; None is empty.

    Raises:
        ConfigError: an unknown section or setting, a value that is not accepted, or a setting in both places.
    """
    for section, values in advanced.items():
        if section not in SECTIONS:
            raise ConfigError(f"advanced: {section!r} is no section. Known: {', '.join(SECTIONS)}.")
        if not isinstance(values, Mapping | None):
            raise ConfigError(f"advanced.{section}: expected settings by name, found {values!r}.")
    settings: dict[str, Any] = {section: dict(values or {}) for section, values in advanced.items()}
    for parameter, value in flat.items():
        *sections, key = FLAT[parameter]
        place = settings
        for section in sections:
            place = place.setdefault(section, {})
        if place.get(key) is not None:
            raise ConfigError(
                f"advanced.{'.'.join(FLAT[parameter])}: {place[key]!r} is given, and {parameter}: {value!r} too. "
                f"Take it out of advanced and set {parameter}."
            )
        if value is not None:
            place[key] = value
    return parse_settings(settings, PipelineConfig, origin="the parameters of this run")
