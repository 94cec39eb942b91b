"""What is left empty in the settings, as it suits the base model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdlora.artifacts import BaseModelRef
from sdlora.lora.config import LoraConfig
from sdlora.models.families.layouts import FamilyName, find_layout
from sdlora.training.config import Preset, TrainingConfig

SMALL_BASE_PX = 128
"""Bases drawn for less than this learn fast and small; the settings' plain defaults are those of the embedded one."""

# Where public trainers agree (kohya, SimpleTuner, OneTrainer, ai-toolkit, diffusers; at alpha = rank): 1e-4, small
# batches, one to three thousand steps. min-SNR weights are for denoising; a rectified flow has a weighting of its own.
# FLUX.1 [dev] draws without the empty caption, so it needs to see less of it (ai-toolkit and Replicate: 0.05).
_LARGE: Mapping[str, Any] = {"learning_rate": 1e-4, "batch_size": 4}
_FLOW: Mapping[str, Any] = {**_LARGE, "min_snr_gamma": None}
_STEPS: Mapping[Preset, int] = {"small": 500, "standard": 1500, "thorough": 4000}
FAMILY_PRESETS: Mapping[FamilyName, Mapping[str, Any]] = {
    "sd1": _LARGE,
    "sd2": _LARGE,
    "sdxl": _LARGE,
    "sd3": {**_FLOW, "max_grad_norm": 0.1},
    "flux": {**_FLOW, "caption_dropout": 0.05},
}
# 16 nearly everywhere (SimpleTuner, OneTrainer, ai-toolkit, Civitai); XL's layers are twice as wide, and sd-scripts'
# own documentation and cog-sdxl take 32 for it.
FAMILY_LORA: Mapping[FamilyName, Mapping[str, Any]] = {"sdxl": {"rank": 32}}
_FINDS_ITS_RATE = ("prodigy",)


def family_preset(base: BaseModelRef, native_resolution_px: int, config: TrainingConfig) -> dict[str, Any]:
    """The settings that suit the base model's family, whether or not the user chose others."""
    settings: dict[str, Any] = {
        "resolutions": (native_resolution_px,),
        "aspect_buckets": native_resolution_px > SMALL_BASE_PX,
    }
    if native_resolution_px > SMALL_BASE_PX:
        settings |= {**FAMILY_PRESETS[find_layout(base.folder).name], "steps": _STEPS[config.preset]}
        if config.optimizer in _FINDS_ITS_RATE:
            settings.pop("learning_rate")
    return settings


def lora_preset(base: BaseModelRef, native_resolution_px: int) -> dict[str, Any]:
    """The adapter's settings that suit the base model's family, whether or not the user chose others."""
    if native_resolution_px <= SMALL_BASE_PX:
        return {}
    return dict(FAMILY_LORA.get(find_layout(base.folder).name, {}))


def settle_lora(base: BaseModelRef, lora: LoraConfig) -> LoraConfig:
    """The effective settings of an adapter, as `settle` has those of training; settling twice changes nothing.

    Raises:
        WeightsError: the base model's settings files are missing or damaged, or its family is unknown.
    """
    from sdlora.models import parts

    given = {name: getattr(lora, name) for name in lora.model_fields_set}
    return LoraConfig.model_validate({**lora_preset(base, parts.native_resolution(base)), **given})


def settle(base: BaseModelRef, config: TrainingConfig, home: Path) -> TrainingConfig:
    """The effective settings: what the user gave, else what suits the base model's family, else the defaults.

    The arithmetic is settled too (`precision: auto`), because equal settings shall mean equal adapters. Settling
    twice changes nothing.

    Raises:
        WeightsError: the base model's settings files are missing or damaged, or its family is unknown.
    """
    from sdlora.models import parts

    given = {name: getattr(config, name) for name in config.model_fields_set}
    settled = {**family_preset(base, parts.native_resolution(base), config), **given}
    if settled.get("precision", "auto") == "auto":
        settled["precision"] = _fastest_precision(home)
    return TrainingConfig.model_validate(settled)


def _fastest_precision(home: Path) -> str:
    from sdlora.models.precision import probe_of_this_machine

    return probe_of_this_machine(home).precision
