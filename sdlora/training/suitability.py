"""Checks that settings suit the base model and each other, before any image is read."""

from __future__ import annotations

import torch

from sdlora.core.errors import ConfigError, TrainingError
from sdlora.core.refs import BaseModelRef, Quantization
from sdlora.data.snapshot import Snapshot
from sdlora.lora.config import Method, ResolvedLora
from sdlora.lora.targets import find_targets
from sdlora.lora.text import check_text_encoders
from sdlora.models import parts
from sdlora.models.families import family_of
from sdlora.models.quantize import require_quantizer
from sdlora.training.config import ResolvedTraining
from sdlora.training.learning.optimizers import require_library

LEAST_DRAWN = 8
"""Least number of held-out images for a distance between drawn and real images."""


def check_settings(base: BaseModelRef, lora: ResolvedLora | None, config: ResolvedTraining, num_processes: int) -> None:
    """Check all settings that need no images, against the base's own settings files.

    Args:
        base: the base model; no weights are read.
        lora: settings of the adapter; None if all weights are trained.
        config: resolved training settings.
        num_processes: processes that share a step.

    Raises:
        ConfigError: a library is missing, or the job cannot be trained on a quantised base.
        TargetModuleError: the adapter does not fit the base.
        TrainingError: the resolutions, the batch or the number of processes cannot be trained.
    """
    check_quantized(base, lora)
    require_library(config)
    _check_resolutions(base, config)
    if config.batch_size % num_processes:
        raise TrainingError(
            f"training.batch_size: {config.batch_size} cannot be shared by {num_processes} processes. "
            "Set a multiple of the number of processes."
        )
    if torch.cuda.is_available() and num_processes > torch.cuda.device_count():
        raise TrainingError(
            f"training.num_processes: {num_processes} processes need a GPU each; this machine has "
            f"{torch.cuda.device_count()}. Set that number or less."
        )
    if lora is not None:
        find_targets(parts.denoiser_outline(base), lora)
        check_text_encoders(family_of(base.folder), lora)


def check_rows(snapshot: Snapshot, config: ResolvedTraining) -> None:
    """Check that there are training images, and enough held-out images for `validation_images`.

    Raises:
        TrainingError: no training rows, or too few held-out ones.
    """
    if not snapshot.train:
        held_out = f"; all of its {len(snapshot.held_out)} images are held out" if snapshot.held_out else ""
        raise TrainingError(
            f"The snapshot {snapshot.digest[:12]} has no training images{held_out}. Collect more images, or lower "
            "data.held_out_fraction, before training."
        )
    if config.validation_images is not None and len(snapshot.held_out) < LEAST_DRAWN:
        raise TrainingError(
            f"training.validation_images: {config.validation_images} held-out captions are to be drawn, but the "
            f"snapshot {snapshot.digest[:12]} holds out {len(snapshot.held_out)}, too few for a distance of images: "
            f"{LEAST_DRAWN} are needed. Collect more images, raise data.held_out_fraction, or leave "
            "training.validation_images empty."
        )


def _check_resolutions(base: BaseModelRef, config: ResolvedTraining) -> None:
    multiple_px = family_of(base.folder).side_multiple_px
    unfit = [side_px for side_px in config.resolutions if side_px % multiple_px]
    if unfit:
        raise TrainingError(
            f"training.resolutions: {', '.join(map(str, unfit))} cannot be trained on {base.name}: its sides must be "
            f"multiples of {multiple_px} px. Set {', '.join(str(_nearest(side, multiple_px)) for side in unfit)}."
        )


def _nearest(side_px: int, multiple_px: int) -> int:
    return max(1, round(side_px / multiple_px)) * multiple_px


_OTHER_UPDATES = "peft computes only LoRA, rsLoRA and DoRA on quantised layers"
_WHY_NOT: dict[tuple[Quantization, Method], str] = {
    ("int8", "pissa"): "PiSSA takes a part out of each weight, and the remainder would be rounded again",
    ("int8", "loha"): _OTHER_UPDATES,
    ("int8", "lokr"): _OTHER_UPDATES,
    # peft 0.21 with bitsandbytes 0.50 on a CPU: reading the weight of a layer loses the scales of its rows.
    ("int8", "dora"): "peft reads the weight of each layer, which breaks an 8-bit layer on a CPU; nf4 works",
}
_WHY_NOT |= {("nf4", method): why for (_, method), why in _WHY_NOT.items() if method != "dora"}


def check_quantized(base: BaseModelRef, lora: ResolvedLora | None) -> None:
    """Check that a run can be trained with `base_model.quantize`.

    Args:
        base: the base model; without quantisation nothing is checked.
        lora: settings of the adapter; None if all weights are trained.

    Raises:
        ConfigError: the library is missing, or the method needs the original weights.
    """
    if base.quantize is None:
        return
    if lora is None:
        raise ConfigError(
            f"base_model.quantize: {base.quantize} holds frozen weights in few bits, and regular fine-tuning (full) "
            "moves them by less than such a step. Set base_model.quantize to null, or train an adapter."
        )
    why = _WHY_NOT.get((base.quantize, lora.method))
    if why:
        raise ConfigError(
            f"base_model.quantize: {base.quantize} cannot be used with lora.method {lora.method}: "
            f"{why}. Set base_model.quantize to null, or lora.method to lora."
        )
    require_quantizer(base.quantize)
