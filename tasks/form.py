"""A style's file as the parameters of a run, and back: what a form, a schedule and a typed command have in common.

The parameters that people use are flat; all other settings are in `advanced`, by the file's own sections and keys.
Whatever the file leaves empty is in neither, so that it is empty for every way to start a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic

from pydantic import WithJsonSchema

from sdlora.config import NAME_PATTERN, ConfigFile, PipelineConfig, parse_settings, without_empty
from sdlora.core.errors import ConfigError
from sdlora.pretraining.config import PretrainPlan


@dataclass(frozen=True)
class Form(Generic[ConfigFile]):
    """How a configuration file and the parameters of a flow correspond.

    Attributes:
        model: what the file holds.
        flat: parameters of their own, by where they stand in the file.
        sections: what `advanced` may hold.
    """

    model: type[ConfigFile]
    flat: Mapping[str, tuple[str, ...]]
    sections: tuple[str, ...]

    def advanced_schema(self) -> dict[str, Any]:
        """The JSON schema of `advanced`: Prefect's server refuses an unknown section before anything is queued."""
        return {
            "type": "object",
            "propertyNames": {"enum": list(self.sections)},
            "additionalProperties": {"type": ["object", "null"]},
        }

    def parameters(self, config: ConfigFile) -> dict[str, Any]:
        """The parameters that say what the file says, and nothing that it leaves empty."""
        settings = without_empty(config.model_dump(mode="json", exclude_unset=True), self.model)
        flat = {}
        for parameter, (*sections, key) in self.flat.items():
            values = settings
            for section in sections:
                values = values.get(section, {})
            if key in values:
                flat[parameter] = values.pop(key)
        advanced = {section: settings[section] for section in self.sections if settings.get(section)}
        return {**flat, "advanced": advanced} if advanced else flat

    def config(self, advanced: Mapping[str, Any], **flat: Any) -> ConfigFile:
        """The configuration that the parameters of a run describe.

        Args:
            advanced: settings by section and key.
            flat: values by parameter; None is empty.

        Raises:
            ConfigError: an unknown section or setting, a value that is not accepted, or a setting in both places.
        """
        settings = {section: dict(values) for section, values in self._checked_sections(advanced).items()}
        for parameter, value in flat.items():
            *sections, key = self.flat[parameter]
            values: dict[str, Any] = settings
            for section in sections:
                values = values.setdefault(section, {})
            if values.get(key) is not None:
                raise ConfigError(
                    f"advanced.{'.'.join(self.flat[parameter])}: {values[key]!r} is given, and {parameter}: {value!r} "
                    f"too. Take it out of advanced and set {parameter}."
                )
            if value is not None:
                values[key] = value
        return parse_settings(settings, self.model, origin="the parameters of this run")

    def _checked_sections(self, advanced: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        for section, values in advanced.items():
            if section not in self.sections:
                raise ConfigError(f"advanced: {section!r} is no section. Known: {', '.join(self.sections)}.")
            if not isinstance(values, Mapping | None):
                raise ConfigError(f"advanced.{section}: expected settings by name, found {values!r}.")
        return {section: values or {} for section, values in advanced.items()}


STYLE = Form(
    PipelineConfig,
    {
        "name": ("name",),
        "sources": ("data", "sources"),
        "base_model": ("base_model", "source"),
        "preset": ("training", "preset"),
        "steps": ("training", "steps"),
        "learning_rate": ("training", "learning_rate"),
        "rank": ("lora", "rank"),
    },
    ("data", "base_model", "lora", "training", "evaluation", "gate"),
)
PLAN = Form(
    PretrainPlan,
    {
        "name": ("name",),
        "sources": ("data", "sources"),
        "resolution": ("model", "resolution"),
        "processes": ("processes",),
    },
    ("data", "model"),
)

# The form of Prefect's page and the check of its server follow the JSON schema: `int | None` would become a choice of
# types, where an empty box is meant. In Python the values go to a form's `config`, which refuses in our own words.
Name = Annotated[str, WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
Count = Annotated[int | None, WithJsonSchema({"type": "integer", "minimum": 1})]
LearningRate = Annotated[float | None, WithJsonSchema({"type": "number", "exclusiveMinimum": 0})]
Advanced = Annotated[dict[str, Any], WithJsonSchema(STYLE.advanced_schema())]
AdvancedPlan = Annotated[dict[str, Any], WithJsonSchema(PLAN.advanced_schema())]
