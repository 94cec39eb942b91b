"""Optimisers: AdamW from PyTorch, and others from optional libraries."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from typing import Any, cast

import torch

from sdlora.core.errors import ConfigError, TrainingError
from sdlora.training.config import OptimizerName, ResolvedTraining

_LIBRARIES: dict[OptimizerName, str] = {
    "adamw8bit": "bitsandbytes",
    "prodigy": "prodigyopt",
    "schedule_free": "schedulefree",
}


def make_optimizer(groups: Sequence[dict[str, Any]], config: ResolvedTraining) -> torch.optim.Optimizer:
    """Create the configured optimiser over PyTorch's parameter groups, with `params` and `lr` each.

    Raises:
        ConfigError: the optimiser's library is not installed, or does not work on this device.
        TrainingError: the groups' rates differ and the optimiser finds the rate itself.
    """
    settings: dict[str, Any] = {"lr": groups[0]["lr"], "weight_decay": config.weight_decay}
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, **settings, fused=True)
        case "adamw8bit":
            _require_gpu(groups)
            return cast("torch.optim.Optimizer", _library("adamw8bit").optim.AdamW8bit(groups, **settings))
        case "schedule_free":
            # The library's own warm-up weights the average by the rate; a rate set from outside would not.
            optimizer = _library("schedule_free").AdamWScheduleFree(
                groups, **settings, warmup_steps=config.warmup_steps
            )
            optimizer.train()
            return cast("torch.optim.Optimizer", optimizer)
        case "prodigy":
            _require_one_rate(groups)
            with redirect_stdout(StringIO()):  # the library prints its weight decay
                # Both options as the library's README advises for diffusion models.
                optimizer = _library("prodigy").Prodigy(
                    groups, **settings, use_bias_correction=True, safeguard_warmup=True
                )
            return cast("torch.optim.Optimizer", optimizer)


def require_library(config: ResolvedTraining) -> None:
    """Check before any work that the library of the chosen optimiser is installed.

    Raises:
        ConfigError: the library is not installed; the message has the command that installs it.
    """
    if config.optimizer in _LIBRARIES:
        _library(config.optimizer)


def _library(name: OptimizerName) -> Any:
    package = _LIBRARIES[name]
    try:
        return import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"training.optimizer: {name} needs the package {package}, which is not installed ({error}). "
            f"Install it with `pip install {package}`, or choose adamw."
        ) from error


def _require_gpu(groups: Sequence[dict[str, Any]]) -> None:
    device = groups[0]["params"][0].device
    if device.type != "cuda":
        raise ConfigError(
            f"training.optimizer: adamw8bit keeps its state in 8 bits on a CUDA device only; this run is on {device}. "
            "Choose adamw."
        )


def _require_one_rate(groups: Sequence[dict[str, Any]]) -> None:
    rates = sorted({group["lr"] for group in groups})
    if len(rates) > 1:
        raise TrainingError(
            f"training.optimizer: prodigy finds one rate for all parameters, but the groups ask for {rates}. "
            "Give all the same rate, or choose adamw."
        )
