"""Configuration of the whole loop: one section per stage, read from a YAML file or a form."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from sdlora.core.config_base import FrozenConfig
from sdlora.core.errors import ConfigError
from sdlora.core.refs import BaseModelRef
from sdlora.data.config import DataConfig
from sdlora.evaluation.config import EvaluationConfig, GateConfig
from sdlora.lora.config import LoraConfig, ResolvedLora
from sdlora.models.config import BaseModelConfig
from sdlora.pretraining.config import PretrainPlan
from sdlora.training.config import ResolvedTraining, TrainingConfig
from sdlora.training.defaults import BaseTraits, resolve_lora, resolve_training, training_fillings

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]*$"


class PipelineConfig(FrozenConfig):
    """Configuration of one run of the loop, as typed; settings may be empty."""

    name: str = Field(
        "style",
        pattern=NAME_PATTERN,
        description="name of the adapter in files, in the registry and in the experiment list",
    )
    data: DataConfig = Field(default_factory=DataConfig, description="where images come from and which are kept")
    base_model: BaseModelConfig = Field(default_factory=BaseModelConfig, description="what the adapter attaches to")
    lora: LoraConfig = Field(default_factory=LoraConfig, description="the adapter's size and place")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="how long and how fast it learns")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="how the duel is fought")
    gate: GateConfig = Field(default_factory=GateConfig, description="what makes a candidate the champion")


class ResolvedConfig(PipelineConfig):
    """Configuration of one run with every empty setting filled, as the form, MLflow and the report show it."""

    lora: ResolvedLora
    training: ResolvedTraining

    def digest(self) -> str:
        """Compute the SHA-256 of all settings that can change the result; `data.sources` cannot."""
        settings = self.model_dump(mode="json")
        settings["data"].pop("sources", None)
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def resolve(config: PipelineConfig, base: BaseModelRef, home: Path) -> ResolvedConfig:
    """Fill every empty setting with what suits the base model; once per run, as soon as the base is prepared.

    Args:
        config: the configuration from a file, a form or a call.
        base: the base model named in the configuration.
        home: the state folder, which holds the measured precision.

    Raises:
        WeightsError: the base model's settings files are missing or damaged, or its family is unknown.
    """
    return ResolvedConfig(
        name=config.name,
        data=config.data,
        base_model=config.base_model,
        lora=resolve_lora(config.lora, base),
        training=resolve_training(config.training, base, home),
        evaluation=config.evaluation,
        gate=config.gate,
    )


@dataclass(frozen=True)
class Setting:
    """Setting of a run with its origin.

    Attributes:
        name: dotted name, as in the file.
        value: resolved value.
        origin: "flag", "file", "default", "measured", or the reason for the value of an empty setting.
        meaning: description of the setting.
    """

    name: str
    value: Any
    origin: str
    meaning: str


def explain(config: PipelineConfig, base: BaseModelRef, home: Path, flags: Collection[str] = ()) -> list[Setting]:
    """List all settings in the order of the file, each with its value and the origin of the value.

    Args:
        config: the configuration from the file and the flags.
        base: the base model named in the configuration.
        home: the state folder, which holds the measured precision.
        flags: dotted names given on the command line.

    Raises:
        WeightsError: the base model's settings files are missing or damaged, or its family is unknown.
    """
    traits = BaseTraits.of(base)
    fillings = training_fillings(config.training, traits)
    origins = {f"training.{name}": filling.origin for name, filling in fillings.items()}
    origins |= {"lora.rank": f"family {traits.family}", "lora.alpha": "follows rank", "lora.targets": "follows method"}
    if config.training.precision == "auto":
        origins["training.precision"] = "measured"

    def walk(section: BaseModel, resolved: BaseModel, prefix: str) -> Iterator[Setting]:
        for key, field in type(section).model_fields.items():
            name, value = prefix + key, getattr(section, key)
            if isinstance(value, BaseModel):
                yield from walk(value, getattr(resolved, key), f"{name}.")
                continue
            is_set = key in section.model_fields_set and (value is not None or name not in origins)
            origin = "flag" if name in flags else "file" if is_set else origins.get(name, "default")
            yield Setting(name, getattr(resolved, key), origin, field.description or "")

    return list(walk(config, resolve(config, base, home), ""))


_MODEL_PATHS = (("base_model", "source"), ("base_model", "layout"), ("data", "unsafe_model"), ("data", "caption_model"))

ConfigFile = TypeVar("ConfigFile", PipelineConfig, PretrainPlan)


def load_config(path: str | PathLike[str], flags: Mapping[str, Any] | None = None) -> PipelineConfig:
    """Read the loop's configuration from a YAML file, see `load_file`."""
    return load_file(Path(path), PipelineConfig, flags)


def load_file(path: Path, model: type[ConfigFile], flags: Mapping[str, Any] | None = None) -> ConfigFile:
    """Read a YAML file; relative paths of sources are relative to the file.

    Args:
        path: the YAML file.
        model: model of the settings in the file.
        flags: settings by dotted name; they override those of the file.

    Raises:
        ConfigError: the file is missing or not YAML, or a key or value is invalid.
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
        _set_by_name(settings, name, value)
    return parse_settings(
        _with_absolute_paths(settings, path.parent), model, str(path) + (" and --set" if flags else "")
    )


def parse_flags(texts: Sequence[str]) -> dict[str, Any]:
    """Parse settings of the form `section.key=value`, each value as YAML; returned by dotted name.

    Raises:
        ConfigError: a text has another form.
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


def _set_by_name(settings: dict[str, Any], name: str, value: Any) -> None:
    *sections, key = name.split(".")
    for section in sections:
        inner = settings.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {name}: {section} is a single setting, not a section.")
        settings = inner
    settings[key] = value


def parse_settings(settings: dict[str, Any], model: type[ConfigFile], origin: str) -> ConfigFile:
    """Validate settings by name; the error lists every problem by the key as typed.

    Raises:
        ConfigError: an unknown key (with the nearest known key) or an invalid value.
    """
    try:
        return model.model_validate(without_empty(settings, model))
    except ValidationError as error:
        problems = [_describe(model, problem) for problem in error.errors()]
        raise ConfigError(f"{origin}:\n" + "\n".join(f"  {problem}" for problem in problems)) from error


def _describe(model: type[BaseModel], problem: Any) -> str:
    location = problem["loc"]
    key = ".".join(map(str, location))
    if problem["type"] != "extra_forbidden":
        return f"{key}: {problem['msg']}; found {problem['input']!r}."
    known_keys = _known_keys(model, location[:-1])
    nearest = difflib.get_close_matches(str(location[-1]), known_keys, n=1, cutoff=0.5)
    remedy = f"Did you mean {nearest[0]!r}?" if nearest else f"Known here: {', '.join(known_keys)}."
    return f"{key}: unknown setting. {remedy}"


def _known_keys(model: type[BaseModel], section: Sequence[int | str]) -> list[str]:
    for name in section:
        inner = _section(model.model_fields.get(str(name)))
        if inner is None:
            break
        model = inner
    return list(model.model_fields)


def without_empty(settings: Any, model: type[BaseModel]) -> Any:
    """Drop keys without a value, so that an empty setting equals a missing one.

    A `null` that is a value stays: a limit of the gate is switched off by `null`.
    """
    if not isinstance(settings, dict):
        return settings
    filled: dict[str, Any] = {}
    for key, value in settings.items():
        field = model.model_fields.get(key)
        section = _section(field)
        if field is None or value is not None:
            filled[key] = without_empty(value, section) if section else value
        elif field.default is not None and type(None) in get_args(field.annotation):
            filled[key] = None
    return filled


def _section(field: FieldInfo | None) -> type[BaseModel] | None:
    annotation = field.annotation if field else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _with_absolute_paths(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Resolve relative paths against the file's folder, because a worker runs in another one."""
    settings = {key: dict(value) if isinstance(value, dict) else value for key, value in settings.items()}
    data = settings.get("data")
    if isinstance(data, dict) and isinstance(data.get("sources"), list):
        data["sources"] = [_absolute_source(folder, source) for source in data["sources"]]
    for section, key in _MODEL_PATHS:
        values = settings.get(section)
        if isinstance(values, dict) and key in values:
            values[key] = _existing_path(folder, values[key])
    return settings


def _absolute_source(folder: Path, source: Any) -> Any:
    if not isinstance(source, str) or ":" in source.split("/", 1)[0]:  # a scheme such as hf: or https:
        return source
    return str((folder / Path(source).expanduser()).resolve())


def _existing_path(folder: Path, value: Any) -> Any:
    """Return the absolute path of an existing file or folder; else the value, such as the id of a model."""
    if not isinstance(value, str):
        return value
    for parent in (folder, Path.cwd()):
        if value and (path := parent / Path(value).expanduser()).exists():
            return str(path.resolve())
    return value
