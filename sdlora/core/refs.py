"""References to the things that stages hand each other: where a thing is, and the digest of what it holds.

A path is not an identity: whoever opens a reference compares the digest. References are small, frozen and
JSON-serialisable, so an orchestrator can store and pass them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sdlora.core.config_base import FrozenConfig

Precision = Literal["fp32", "bf16", "fp16"]
Quantization = Literal["int8", "nf4"]
"""How a frozen weight is held in fewer bits: one byte, or four bits in the steps of a normal distribution."""


class SnapshotRef(FrozenConfig):
    """A snapshot in the image database."""

    digest: str
    train_count: int
    held_out_count: int


class BaseModelRef(FrozenConfig):
    """A base model as a diffusers folder of safetensors; `digest` covers its weights and settings.

    `quantize` is how training holds its frozen denoiser. Whoever draws, judges or exports takes the weights as they
    are, so it is no part of the base's identity, but of a training run's.
    """

    name: str
    folder: Path
    digest: str
    quantize: Quantization | None = None


ADAPTER_WEIGHTS = "pytorch_lora_weights.safetensors"
"""The adapter's file in the format of diffusers and peft, in its folder."""


class AdapterRef(FrozenConfig):
    """A trained adapter: a folder with the weights in both formats.

    `digest` is the SHA-256 of the file `ADAPTER_WEIGHTS`; `run_digest` names the inputs that made it.
    """

    folder: Path
    digest: str
    base_digest: str
    snapshot_digest: str
    run_digest: str
