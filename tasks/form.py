"""Conversion between a style's file and the parameters of a run, for forms, schedules and typed commands.

Common settings are flat parameters; all other settings are in `advanced`, by the file's sections and keys. A setting
that the file leaves empty is in neither, so it is empty for every way to start a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic

from pydantic import Field, WithJsonSchema

from sdlora.config import ConfigFile, PipelineConfig, parse_settings, without_empty
from sdlora.core.config_base import MAX_LEARNING_RATE, MAX_NAME_CHARS, MAX_STEPS, NAME_PATTERN
from sdlora.core.errors import ConfigError
from sdlora.core.quoting import excerpt
from sdlora.pretraining.config import PretrainPlan

MAX_TEXT_CHARS = 1000
"""Characters of a name or a reason in a form."""


@dataclass(frozen=True)
class Form(Generic[ConfigFile]):
    """Mapping between a configuration file and the parameters of a flow.

    Attributes:
        model: the model of the file.
        flat: path in the file of each flat parameter.
        sections: allowed keys of `advanced`.
    """

    model: type[ConfigFile]
    flat: Mapping[str, tuple[str, ...]]
    sections: tuple[str, ...]

    def advanced_schema(self) -> dict[str, Any]:
        """Return the JSON schema of `advanced`, with which the server refuses an unknown section before queueing."""
        return {
            "type": "object",
            "propertyNames": {"enum": list(self.sections)},
            "additionalProperties": {"type": ["object", "null"]},
        }

    def parameters(self, config: ConfigFile) -> dict[str, Any]:
        """Return the parameters that equal the file; settings that the file leaves empty are absent."""
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
        """Build the configuration from the parameters of a run.

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
                    f"advanced.{'.'.join(self.flat[parameter])}: {excerpt(values[key])} is given, and {parameter}: "
                    f"{excerpt(value)} too. Take it out of advanced and set {parameter}."
                )
            if value is not None:
                values[key] = value
        return parse_settings(settings, self.model, origin="the parameters of this run")

    def _checked_sections(self, advanced: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        for section, values in advanced.items():
            if section not in self.sections:
                raise ConfigError(f"advanced: {excerpt(section)} is no section. Known: {', '.join(self.sections)}.")
            if not isinstance(values, Mapping | None):
                raise ConfigError(f"advanced.{section}: expected settings by name, found {excerpt(values)}.")
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
    ("data", "base_model", "lora", "training", "evaluation", "gate", "export", "schedule", "trigger"),
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

# The form of Prefect's page and the check of its server follow the JSON schema. `int | None` would become a choice of
# types instead of a box that may stay empty. In Python, `Form.config` checks the values, with messages of our own.
Name = Annotated[str, WithJsonSchema({"type": "string", "pattern": NAME_PATTERN, "maxLength": MAX_NAME_CHARS})]
Count = Annotated[int | None, WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_STEPS})]
Number = Annotated[int | None, WithJsonSchema({"type": "integer", "minimum": 1})]
Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
LearningRate = Annotated[
    float | None, WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": MAX_LEARNING_RATE})
]
Advanced = Annotated[dict[str, Any], WithJsonSchema(STYLE.advanced_schema())]
AdvancedPlan = Annotated[dict[str, Any], WithJsonSchema(PLAN.advanced_schema())]
