"""Defaults per model family, and the resolution of empty settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sdlora.core.refs import BaseModelRef, Precision
from sdlora.lora.config import LoraConfig, ResolvedLora
from sdlora.models.families.layouts import FamilyName, find_layout
from sdlora.models.families.sizes import native_resolution
from sdlora.training.config import Preset, ResolvedTraining, TrainingConfig

SMALL_BASE_PX = 128
"""Native resolution up to which a base model takes the defaults `SMALL`, in any family."""

VALIDATION_EVERY_STEPS: Mapping[Preset, int] = {"small": 100, "standard": 250, "thorough": 500}


@dataclass(frozen=True)
class FamilyDefaults:
    """Defaults for a family of base models, under the names of the settings."""

    steps: Mapping[Preset, int]
    batch_size: int
    learning_rate: float
    max_grad_norm: float
    caption_dropout: float
    min_snr_gamma: float
    rank: int


# The embedded base is 80 times smaller than Stable Diffusion 1.5, and its adapter starts at zero with scale 1. At 1e-4,
# the usual rate for large bases, the adapter would need thousands of steps to leave the base's style. The three presets
# take about one, five and twenty minutes on two CPU cores.
SMALL = FamilyDefaults(
    steps={"small": 400, "standard": 2000, "thorough": 8000},
    batch_size=16,
    learning_rate=2e-3,
    max_grad_norm=1.0,
    caption_dropout=0.1,
    min_snr_gamma=5.0,
    rank=16,
)
# Public trainers agree on 1e-4, small batches and one to three thousand steps, at alpha = rank (kohya, SimpleTuner,
# OneTrainer, ai-toolkit, diffusers).
_LARGE = replace(SMALL, steps={"small": 500, "standard": 1500, "thorough": 4000}, batch_size=4, learning_rate=1e-4)
# Min-SNR weights are for denoising; a rectified flow has its own weighting.
_FLOW = replace(_LARGE, min_snr_gamma=0.0)
DEFAULTS: Mapping[FamilyName, FamilyDefaults] = {
    "sd1": _LARGE,
    "sd2": _LARGE,
    # Rank 16 is the usual default (SimpleTuner, OneTrainer, ai-toolkit, Civitai). XL's layers are twice as wide; the
    # documentation of sd-scripts and cog-sdxl use 32.
    "sdxl": replace(_LARGE, rank=32),
    "sd3": replace(_FLOW, max_grad_norm=0.1),
    # FLUX.1 [dev] draws without the empty caption, so less dropout is needed (ai-toolkit and Replicate: 0.05).
    "flux": replace(_FLOW, caption_dropout=0.05),
}


@dataclass(frozen=True)
class BaseTraits:
    """Traits of a base model that the defaults depend on.

    Attributes:
        family: name of the family.
        native_resolution_px: side of the images that the base was made for.
    """

    family: FamilyName
    native_resolution_px: int

    @classmethod
    def of(cls, base: BaseModelRef) -> BaseTraits:
        """Read the traits from the base model's settings files.

        Raises:
            WeightsError: the files are missing or damaged, or the family is unknown.
        """
        layout = find_layout(base.folder)
        return cls(layout.name, native_resolution(base.folder, layout))

    @property
    def is_small(self) -> bool:
        return self.native_resolution_px <= SMALL_BASE_PX

    @property
    def defaults(self) -> FamilyDefaults:
        return SMALL if self.is_small else DEFAULTS[self.family]


@dataclass(frozen=True)
class Filling:
    """Value for a setting that was left empty, and its origin in words."""

    value: Any
    origin: str


def training_fillings(config: TrainingConfig, traits: BaseTraits) -> dict[str, Filling]:
    """Compute a value for every training setting that can be empty, except `precision`, which is measured."""

    def set_or(name: str, default: Any) -> Any:
        value = getattr(config, name)
        return default if value is None else value

    defaults, finds_its_rate = traits.defaults, config.optimizer == "prodigy"
    steps, batch_size = set_or("steps", defaults.steps[config.preset]), set_or("batch_size", defaults.batch_size)
    learning_rate = set_or("learning_rate", 1.0 if finds_its_rate else defaults.learning_rate)
    family, preset, optimizer = f"family {traits.family}", f"preset {config.preset}", "follows optimizer"
    return {
        "steps": Filling(steps, preset),
        "batch_size": Filling(batch_size, family),
        "resolutions": Filling((traits.native_resolution_px,), family),
        "aspect_buckets": Filling(not traits.is_small, family),
        "learning_rate": Filling(learning_rate, optimizer if finds_its_rate else family),
        # Text encoders forget faster than they learn; the guides of trainers agree on half of the denoiser's rate.
        "text_encoder_learning_rate": Filling(learning_rate / (1 if finds_its_rate else 2), "follows learning_rate"),
        "schedule": Filling("cosine" if config.optimizer.startswith("adamw") else "constant", optimizer),
        "warmup_steps": Filling(0 if finds_its_rate else max(1, steps // 20), "follows steps"),
        "max_grad_norm": Filling(defaults.max_grad_norm, family),
        "caption_dropout": Filling(defaults.caption_dropout, family),
        "min_snr_gamma": Filling(defaults.min_snr_gamma, family),
        # DreamBooth takes one per image; a quarter preserved the base as well, see docs/experiments.md.
        "prior_batch_size": Filling(max(1, batch_size // 4), "follows batch_size"),
        "validation_every_steps": Filling(VALIDATION_EVERY_STEPS[config.preset], preset),
    }


def fill_training(config: TrainingConfig, traits: BaseTraits, precision: Precision) -> ResolvedTraining:
    """Fill every empty setting.

    Args:
        config: the user's settings.
        traits: traits of the base model.
        precision: the measured choice for `auto`.
    """
    values = {name: filling.value for name, filling in training_fillings(config, traits).items()}
    values |= {name: value for name, value in config if value is not None}
    if config.precision == "auto":
        values["precision"] = precision
    return ResolvedTraining.model_validate(values)


def resolve_training(config: TrainingConfig, base: BaseModelRef, home: Path) -> ResolvedTraining:
    """Fill every empty setting with what suits the base model; resolving twice changes nothing.

    `precision: auto` is measured once per state folder, since equal settings must mean equal adapters.

    Raises:
        WeightsError: the base model's settings files are missing or damaged, or its family is unknown.
    """
    if isinstance(config, ResolvedTraining):
        return config
    precision = config.precision
    if precision == "auto":
        from sdlora.models.precision import probe_of_this_machine  # imports PyTorch

        precision = probe_of_this_machine(home).precision
    return fill_training(config, BaseTraits.of(base), precision)


def resolve_lora(config: LoraConfig, base: BaseModelRef) -> ResolvedLora:
    """Fill every empty setting of the adapter with what suits the base model; resolving twice changes nothing.

    Raises:
        WeightsError: the base model's settings files are missing or damaged, or its family is unknown.
    """
    return config.filled(BaseTraits.of(base).defaults.rank)
