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

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from sdlora.core.config_base import MAX_NAME_CHARS, NAME_PATTERN, SettingsSection
from sdlora.core.errors import ConfigError
from sdlora.core.foreign_yaml import MAX_BYTES, parse_yaml, require_shallow
from sdlora.core.quoting import escaped, excerpt
from sdlora.core.refs import BaseModelRef
from sdlora.core.schedule import ScheduleConfig
from sdlora.core.trigger import TriggerConfig
from sdlora.data.config import DataConfig, ResolvedData, resolve_data
from sdlora.evaluation.config import EvaluationConfig, GateConfig
from sdlora.lora.config import LoraConfig, ResolvedLora
from sdlora.models.config import BaseModelConfig
from sdlora.release.config import ExportConfig
from sdlora.training.config import ResolvedTraining, TrainingConfig
from sdlora.training.defaults import BaseTraits, resolve_lora, resolve_training, training_fillings

_MAX_PROBLEMS = 20
"""Problems of a configuration that one error lists."""


class PipelineConfig(SettingsSection):
    """Configuration of one run of the loop, as typed; settings may be empty."""

    name: str = Field(
        "style",
        pattern=NAME_PATTERN,
        max_length=MAX_NAME_CHARS,
        description="name of the adapter in files, in the registry and in the experiment list",
    )
    data: DataConfig = Field(default_factory=DataConfig, description="where images come from and which are kept")
    base_model: BaseModelConfig = Field(default_factory=BaseModelConfig, description="what the adapter attaches to")
    lora: LoraConfig = Field(default_factory=LoraConfig, description="the adapter's size and place")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="how long and how fast it learns")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="how the duel is fought")
    gate: GateConfig = Field(default_factory=GateConfig, description="what makes a candidate the champion")
    export: ExportConfig = Field(default_factory=ExportConfig, description="where the champion's file goes")
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig, description="when the clock starts runs")
    trigger: TriggerConfig = Field(default_factory=TriggerConfig, description="when new data starts runs")


class ResolvedConfig(PipelineConfig):
    """Configuration of one run with every empty setting filled, as the form, MLflow and the report show it."""

    data: ResolvedData
    lora: ResolvedLora
    training: ResolvedTraining

    def digest(self) -> str:
        """Compute the SHA-256 of all settings that can change the result; places and times cannot."""
        settings = self.model_dump(mode="json", exclude={"export", "schedule", "trigger"})
        for place in ("dataset", "sources", "mirror_sources"):
            settings["data"].pop(place, None)
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def resolve(config: PipelineConfig, base: BaseModelRef, home: Path) -> ResolvedConfig:
    """Fill every empty setting with what suits the base model; once per run, as soon as the base is prepared.

    `training.precision: auto` is decided once per style. The first run records the choice, and later runs read it. So
    another processor does not train the same images again.

    Args:
        config: the configuration from a file, a form or a call.
        base: the base model named in the configuration.
        home: the state folder, which holds the recorded and the measured precision.

    Raises:
        WeightsError: the base model's settings files are missing or damaged, or its family is unknown.
    """
    from sdlora.store.style_records import recorded_precision  # SQLAlchemy takes half a second to import

    training = config.training
    if training.precision == "auto" and (precision := recorded_precision(home, config.name)):
        training = training.model_copy(update={"precision": precision})
    return ResolvedConfig(
        name=config.name,
        data=resolve_data(config.data, config.name),
        base_model=config.base_model,
        lora=resolve_lora(config.lora, base),
        training=resolve_training(training, base, home),
        evaluation=config.evaluation,
        gate=config.gate,
        export=config.export,
        schedule=config.schedule,
        trigger=config.trigger,
    )


@dataclass(frozen=True)
class Setting:
    """Setting of a run with its origin.

    Attributes:
        name: dotted name, as in the file.
        value: resolved value.
        origin: "flag", "file", "default", "measured", "recorded" (by the style's first run), or the reason for
            the value of an empty setting.
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
        home: the state folder, which holds the recorded and the measured precision.
        flags: dotted names given on the command line.

    Raises:
        WeightsError: the base model's settings files are missing or damaged, or its family is unknown.
    """
    traits = BaseTraits.of(base)
    fillings = training_fillings(config.training, traits)
    origins = {f"training.{name}": filling.origin for name, filling in fillings.items()}
    origins |= {"lora.rank": f"family {traits.family}", "lora.alpha": "follows rank", "lora.targets": "follows method"}
    origins["data.dataset"] = "follows name"
    if config.training.precision == "auto":
        from sdlora.store.style_records import recorded_precision

        origins["training.precision"] = "recorded" if recorded_precision(home, config.name) else "measured"

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

ConfigFile = TypeVar("ConfigFile", bound=BaseModel)


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
    name, text = escaped(str(path)), _read_text(path)
    try:
        settings = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{name} is not valid YAML: {error}. Correct the file; nothing was started.") from error
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        raise ConfigError(f"{name} must hold settings by name, such as `name: my-style`; found {excerpt(settings)}.")
    for setting, value in (flags or {}).items():
        _set_by_name(settings, setting, value)
    return parse_settings(_with_absolute_paths(settings, path.parent), model, name + (" and --set" if flags else ""))


def _read_text(path: Path) -> str:
    name = escaped(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # the path may name a device without an end
        text = content.decode("utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"There is no configuration file {name}. Give the path of a YAML file.") from error
    except (OSError, ValueError) as error:  # a path with NUL, bytes that are no UTF-8
        raise ConfigError(f"The configuration file {name} cannot be read: {error}. Give a YAML file.") from error
    return text


def parse_flags(texts: Sequence[str]) -> dict[str, Any]:
    """Parse settings of the form `section.key=value`, each value as YAML; returned by dotted name.

    Raises:
        ConfigError: a text has another form.
    """
    flags = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {escaped(text)}: expected a setting and its value, such as training.steps=1000.")
        try:
            flags[name.strip()] = parse_yaml(value)
        except ValueError as error:
            raise ConfigError(f"--set {escaped(name)}: {excerpt(value)} is not a YAML value: {error}.") from error
    return flags


def _set_by_name(settings: dict[str, Any], name: str, value: Any) -> None:
    *sections, key = name.split(".")
    for section in sections:
        inner = settings.get(section)
        if inner is None:
            inner = settings[section] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {escaped(name)}: {escaped(section)} is a single setting, not a section.")
        settings = inner
    settings[key] = value


def parse_settings(settings: dict[str, Any], model: type[ConfigFile], origin: str) -> ConfigFile:
    """Validate settings by name; the error lists every problem by the key as typed.

    Raises:
        ConfigError: an unknown key (with the nearest known key) or an invalid value.
    """
    try:
        require_shallow(settings)
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}. Settings have three levels: section, setting, list.") from error
    try:
        return model.model_validate(without_empty(settings, model))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        lines = [f"  {_describe(model, problem)}" for problem in problems[:_MAX_PROBLEMS]]
        lines += [f"  and {len(problems) - _MAX_PROBLEMS} more"] if len(problems) > _MAX_PROBLEMS else []
        raise ConfigError(f"{origin}: correct these settings; nothing was started.\n" + "\n".join(lines)) from error


def _describe(model: type[BaseModel], problem: Any) -> str:
    location = problem["loc"]
    key = escaped(".".join(map(str, location)), 200)
    if problem["type"] != "extra_forbidden":
        message = problem["msg"].removeprefix("Value error, ")  # of a validator of ours
        return f"{key}: {escaped(message)}; found {excerpt(problem['input'])}."
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
    export = settings.get("export")
    if isinstance(export, dict) and isinstance(export.get("on_promote"), str) and export["on_promote"]:
        export["on_promote"] = _absolute_path(folder, export["on_promote"])
    for section, key in _MODEL_PATHS:
        values = settings.get(section)
        if isinstance(values, dict) and key in values:
            values[key] = _existing_path(folder, values[key])
    return settings


def _absolute_source(folder: Path, source: Any) -> Any:
    if not isinstance(source, str) or ":" in source.split("/", 1)[0]:  # a scheme such as hf: or https:
        return source
    return _absolute_path(folder, source)


def _absolute_path(folder: Path, path: str) -> str:
    try:
        return str((folder / Path(path).expanduser()).resolve())
    except (OSError, ValueError, RuntimeError):  # NUL, a loop of links, the folder of an unknown user
        return path


def _existing_path(folder: Path, value: Any) -> Any:
    """Return the absolute path of an existing file or folder; else the value, such as the id of a model."""
    if not isinstance(value, str):
        return value
    for parent in (folder, Path.cwd()):
        try:
            if value and (path := parent / Path(value).expanduser()).exists():
                return str(path.resolve())
        except (OSError, ValueError, RuntimeError):  # a name too long for a file, and as in `_absolute_path`
            return value
    return value
