"""The name of a training run: equal inputs, equal name."""

from __future__ import annotations

import hashlib
import json

from sdlora.core.refs import Quantization
from sdlora.lora.config import ResolvedLora
from sdlora.training.config import ResolvedTraining

TRAINER_VERSION = 6
"""Raised whenever a change of the library changes the adapter that equal inputs give."""

PRIOR_VERSION = 1
"""Raised whenever equal settings give other prior images."""

# These decide what is reported and how often work is saved, not what is learnt.
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
    snapshot_digest: str,
    lora: ResolvedLora | None,
    config: ResolvedTraining,
    quantize: Quantization | None = None,
) -> str:
    """SHA-256 over everything that decides the result's bytes on a given machine; without `lora` all weights learn.

    `quantize` is the base's, see `BaseModelRef`.
    """
    without_effect = set(_WITHOUT_EFFECT)
    if config.keep == "last" and config.early_stop_patience is None:
        without_effect |= {"validation_every_steps", "keep_by"}  # else they decide which step is chosen
    if config.keep_by == "loss" or "keep_by" in without_effect:
        without_effect |= {"keep_by", "validation_images"}
    lora_without_effect = set()
    if lora is None or lora.text_encoder_rank is None:
        # What is not trained does not name the run, so runs from before these settings keep their names.
        lora_without_effect.add("text_encoder_rank")
        without_effect.add("text_encoder_learning_rate")
    if config.prior_weight is None:
        without_effect |= {"prior_weight", "prior_prompts", "prior_images", "prior_batch_size"}
    training = config.model_dump(mode="json", exclude=without_effect)
    training["min_snr_gamma"] = config.min_snr_gamma or None  # as runs were named when null meant the plain loss
    inputs = {
        "trainer": TRAINER_VERSION,
        "base": base_digest,
        "snapshot": snapshot_digest,
        "lora": lora.model_dump(mode="json", exclude=lora_without_effect) if lora else "all weights",
        "training": training,
    }
    if config.prior_weight is not None:
        inputs["prior"] = PRIOR_VERSION
    if quantize:
        inputs["quantize"] = quantize
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
