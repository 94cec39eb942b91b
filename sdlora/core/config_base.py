"""Base class of configuration sections, and settings by dotted names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from sdlora.core.quoting import escaped, quoted

MAX_NAME_CHARS = 96
"""Length of a name, as on the Hugging Face hub: folders, MLflow's models and file names with suffixes have room."""
MAX_SEED = 2**53 - 1
"""Largest integer that every reader of JSON, such as a browser's form, keeps exactly."""
MAX_STEPS = 10_000_000
"""Upper bound of counts of steps."""
MAX_BATCH = 65_536
"""Upper bound of images at a time."""
MAX_LEARNING_RATE = 10.0
"""Upper bound of learning rates; Prodigy multiplies its own estimate by a rate of about 1."""
MAX_GUIDANCE_SCALE = 1000.0
"""Upper bound of guidance scales; useful ones are below 30."""
MAX_COUNT = 10**9
"""Upper bound of counts of images and repetitions."""
MAX_TEXT_CHARS = 8192
"""Length of a setting's text: longer than any path of Linux and than what servers accept as a URL."""

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]*$"
"""Pattern of the names of styles and datasets, which are names of folders too."""


class FrozenConfig(BaseModel):
    """Immutable values: validated once at the entry point, unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SettingsSection(FrozenConfig):
    """Section of settings as people type them: numbers are finite, and texts fit into paths and databases."""

    model_config = ConfigDict(allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _texts_fit(cls, value: Any) -> Any:
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str):
                _require_fitting(text)
        return value


def _require_fitting(text: str) -> None:
    if "\0" in text:
        raise ValueError("a text without the character NUL is expected, which no path and no database takes")
    if len(text) > MAX_TEXT_CHARS:
        raise ValueError(f"a text of at most {MAX_TEXT_CHARS} characters is expected, this one has {len(text)}")


def first_problem(error: Exception) -> str:
    """Describe the first problem of a foreign file for a message: the setting, the reason and the value found.

    Args:
        error: a ValidationError of pydantic; the text of other errors is escaped and shortened.
    """
    if not isinstance(error, ValidationError):
        return escaped(error)
    problem = error.errors(include_url=False, include_context=False)[0]
    setting = ".".join(map(str, problem["loc"]))
    return (
        f"{quoted(setting)}: {escaped(problem['msg'].removeprefix('Value error, '))}, found {quoted(problem['input'])}"
    )


def dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested settings to dotted names, in order: {"lora": {"rank": 8}} -> {"lora.rank": 8}."""

    def walk(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in section.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    return dict(walk(settings, ""))
