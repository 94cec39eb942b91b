"""Training methods that are compared: adapters of each kind, and "full", which trains all weights of the denoiser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import ValidationError

from sdlora.core.errors import ConfigError
from sdlora.core.refs import BaseModelRef
from sdlora.lora.config import LoraConfig, Method, ResolvedLora
from sdlora.training.config import ResolvedTraining, TrainingConfig
from sdlora.training.defaults import resolve_lora, resolve_training

TrainingMethod = Method | Literal["full"]
METHODS: tuple[TrainingMethod, ...] = (*get_args(Method), "full")


@dataclass(frozen=True)
class MethodSettings:
    """Settings of one method; without `lora` all weights of the denoiser learn."""

    lora: ResolvedLora | None
    training: ResolvedTraining


def check_methods(names: tuple[str, ...], setting: str = "methods") -> tuple[TrainingMethod, ...]:
    """Check that all names are training methods, and return them as such.

    Raises:
        ConfigError: no name, or one that no method has; the message begins with `setting`.
    """
    methods = tuple(method for name in names for method in METHODS if method == name)
    if len(methods) != len(names) or not names:
        unknown = ", ".join(name for name in names if name not in METHODS) or "nothing"
        raise ConfigError(f"{setting}: {unknown} is no training method. Known: {', '.join(METHODS)}.")
    return methods


def resolve_method(
    method: TrainingMethod,
    lora: LoraConfig,
    training: TrainingConfig,
    base: BaseModelRef,
    home: Path,
    full_learning_rate: float | None = None,
) -> MethodSettings:
    """Fill the empty settings of one method; all methods share the settings that apply to them.

    A comparison trains in one process: several save time but take more memory and processor time.

    Args:
        method: its adapter's kind takes precedence over the one that `lora` names.
        lora: the adapter's settings; "full" has none.
        training: how long and how fast.
        base: the model to adapt.
        home: the state folder, which remembers measurements.
        full_learning_rate: of "full"; None for a tenth of an adapter's.

    Raises:
        ConfigError: the adapter's settings do not suit the method.
    """
    resolved = resolve_training(training.model_copy(update={"num_processes": 1}), base, home)
    if method == "full":
        # Whole weights move with every step; a tenth of an adapter's rate is the usual proportion.
        rate = full_learning_rate or resolved.learning_rate / 10
        return MethodSettings(None, resolved.model_copy(update={"learning_rate": rate}))
    settings = lora.model_dump(exclude_none=True, exclude={"method"})
    try:
        return MethodSettings(resolve_lora(LoraConfig.model_validate({**settings, "method": method}), base), resolved)
    except ValidationError as error:
        problems = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        raise ConfigError(f"methods: {method} does not go with the settings under lora. {problems}.") from error
