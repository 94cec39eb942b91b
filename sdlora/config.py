"""The configuration of the whole loop: one section per stage, read from a YAML file or typed into a form."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError

from sdlora.data import DataConfig
from sdlora.errors import ConfigError
from sdlora.evaluation import EvaluationConfig, GateConfig
from sdlora.frozen import FrozenConfig
from sdlora.lora import LoraConfig
from sdlora.models import BaseModelConfig
from sdlora.pretraining.plan import PretrainPlan
from sdlora.training import TrainingConfig


class PipelineConfig(FrozenConfig):
    """Everything that decides what a run of the loop makes of the images."""

    name: str = Field(
        "style",
        pattern=r"^[a-z0-9][a-z0-9-]*$",
        description="name of the adapter in files, in the registry and in the experiment list",
    )
    data: DataConfig = Field(default_factory=DataConfig, description="where images come from and which are kept")
    base_model: BaseModelConfig = Field(default_factory=BaseModelConfig, description="what the adapter attaches to")
    lora: LoraConfig = Field(default_factory=LoraConfig, description="the adapter's size and place")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="how long and how fast it learns")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="how the duel is fought")
    gate: GateConfig = Field(default_factory=GateConfig, description="what makes a candidate the champion")

    def digest(self) -> str:
        """SHA-256 of all settings that can change the result; where the images came from is not one of them."""
        settings = self.model_dump(mode="json")
        settings["data"].pop("sources", None)
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


ConfigFile = TypeVar("ConfigFile", PipelineConfig, PretrainPlan)


def load_config(path: Path, flags: Mapping[str, Any] | None = None) -> PipelineConfig:
    """The loop's configuration from a YAML file, see `load_file`."""
    return load_file(path, PipelineConfig, flags)


def load_file(path: Path, model: type[ConfigFile], flags: Mapping[str, Any] | None = None) -> ConfigFile:
    """Read a YAML file; sources written as relative paths are relative to the file.

    Args:
        path: the file.
        model: what it holds.
        flags: settings by dotted name that win over the file's.

    Raises:
        ConfigError: the file is missing, is not YAML, or has a key or value that is not accepted.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"There is no configuration file {path}. Give the path of a YAML file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error}.") from error
    try:
        settings = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must hold settings by name, such as `name: my-style`; found {settings!r}.")
    for name, value in (flags or {}).items():
        _put(settings, name, value)
    config = parse_settings(settings, model, origin=str(path) + (" and --set" if flags else ""))
    sources = tuple(_beside(path, source) for source in config.data.sources)
    return config.model_copy(update={"data": config.data.model_copy(update={"sources": sources})})


def parse_flags(texts: Sequence[str]) -> dict[str, Any]:
    """Settings given as `section.key=value`, each value read as YAML, by dotted name.

    Raises:
        ConfigError: one has another form.
    """
    flags = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {text}: expected a setting and its value, such as training.steps=1000.")
        try:
            flags[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {text}: {value!r} is not a YAML value: {error}") from error
    return flags


def _put(settings: dict[str, Any], name: str, value: Any) -> None:
    *sections, key = name.split(".")
    for section in sections:
        inner = settings.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {name}: {section} is a setting of its own, with no settings inside.")
        settings = inner
    settings[key] = value


def parse_settings(settings: dict[str, Any], model: type[ConfigFile], origin: str) -> ConfigFile:
    """Validate settings by name; every problem is listed, each by the key as it was typed.

    Raises:
        ConfigError: an unknown key (the nearest known one is named) or a value that is not accepted.
    """
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        problems = [
            _describe(model, problem)
            for problem in error.errors()
            if problem["type"] != "default_factory_not_called"  # a default that follows from a refused value
        ]
        raise ConfigError(f"{origin}:\n" + "\n".join(f"  {problem}" for problem in problems)) from error


def _describe(model: type[BaseModel], problem: Any) -> str:
    location = problem["loc"]
    key = ".".join(map(str, location))
    if problem["type"] != "extra_forbidden":
        return f"{key}: {problem['msg']}; found {problem['input']!r}."
    known = _known_keys(model, location[:-1])
    nearest = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    remedy = f"Did you mean {nearest[0]!r}?" if nearest else f"Known here: {', '.join(known)}."
    return f"{key}: unknown setting. {remedy}"


def _known_keys(model: type[BaseModel], section: Sequence[int | str]) -> list[str]:
    for name in section:
        field = model.model_fields.get(str(name))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            break
        model = field.annotation
    return list(model.model_fields)


def _beside(path: Path, source: str) -> str:
    if ":" in source.split("/", 1)[0]:  # a scheme such as hf: or https:
        return source
    return str((path.parent / Path(source).expanduser()).resolve())
