"""Run digest: the identity of a training run, equal for equal inputs."""

from __future__ import annotations

import hashlib
import json

from sdlora.core.refs import Quantization
from sdlora.lora.config import LoraConfig, ResolvedLora
from sdlora.training.config import ResolvedTraining, TrainingConfig

TRAINER_VERSION = 6
"""Raise this when a change of the library changes the adapter that equal inputs give."""

PRIOR_VERSION = 1
"""Raise this when equal settings give other prior images."""

# These settings change reports and checkpoints, not the adapter.
_WITHOUT_EFFECT = {
    "preset",
    "log_every_steps",
    "sample_every_steps",
    "sample_prompts",
    "sample_inference_steps",
    "checkpoint_every_seconds",
    "checkpoint_every_steps",
}


def run_digest(
    base_digest: str,
    training_digest: str,
    lora: ResolvedLora | None,
    config: ResolvedTraining,
    quantize: Quantization | None = None,
) -> str:
    """Compute the SHA-256 over everything that an adapter learns from: the base, the training rows and the settings.

    Held-out images are not part of it, so that more of them train nothing again. With `keep: best` they choose the
    kept step. Those of the run's first start count, and later ones do not open the choice again.

    Args:
        base_digest: digest of the base model's weights.
        training_digest: digest of the snapshot's training rows.
        lora: settings of the adapter; None if all weights are trained.
        config: resolved training settings.
        quantize: quantisation of the base, see `BaseModelRef`.
    """
    without_effect = set(_WITHOUT_EFFECT)
    if config.keep == "last" and config.early_stop_patience is None:
        without_effect |= {
            "validation_every_steps",
            "keep_by",
        }  # with keep "best" or early stopping they decide the step
    if config.keep_by == "loss" or "keep_by" in without_effect:
        without_effect |= {"keep_by", "validation_images"}
    lora_without_effect = set()
    if lora is None or lora.text_encoder_rank is None:
        # Without trained text encoders their settings do not count.
        lora_without_effect.add("text_encoder_rank")
        without_effect.add("text_encoder_learning_rate")
    if config.prior_weight is None:
        without_effect |= {"prior_weight", "prior_prompts", "prior_images", "prior_batch_size"}
    training = config.model_dump(mode="json", exclude=without_effect)
    training["min_snr_gamma"] = config.min_snr_gamma or None  # 0, the plain loss, is null in the digest
    inputs = {
        "trainer": TRAINER_VERSION,
        "base": base_digest,
        "training_rows": training_digest,
        "lora": lora.model_dump(mode="json", exclude=lora_without_effect) if lora else "all weights",
        "training": training,
    }
    if config.prior_weight is not None:
        inputs["prior"] = PRIOR_VERSION
    if quantize:
        inputs["quantize"] = quantize
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def lesson_digest(
    base_digest: str,
    training_digest: str,
    lora: LoraConfig,
    config: TrainingConfig,
    quantize: Quantization | None = None,
) -> str:
    """Compute the SHA-256 of what people give a run: the base, the training rows, and the settings as typed.

    Two runs of equal lessons and different run digests differ only by sdlora: its training code or its defaults.

    Args:
        base_digest: digest of the base model's weights.
        training_digest: digest of the snapshot's training rows.
        lora: settings of the adapter as typed; empty ones do not count.
        config: training settings as typed; empty ones do not count.
        quantize: quantisation of the base, see `BaseModelRef`.
    """
    without_effect = _WITHOUT_EFFECT - {"preset"}  # the preset of typed settings decides the steps
    inputs = {
        "base": base_digest,
        "training_rows": training_digest,
        "lora": lora.model_dump(mode="json", exclude_unset=True, exclude_none=True),
        "training": config.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude=without_effect),
        "quantize": quantize,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
