"""References that stages pass to each other: the location of an artifact and the digest of its content.

A path is not an identity, so the code that opens a reference compares the digest. References are small, frozen and
JSON-serialisable; an orchestrator can store and pass them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sdlora.core.config_base import FrozenConfig

Precision = Literal["fp32", "bf16", "fp16"]
Quantization = Literal["int8", "nf4"]
"""Storage of a frozen weight: one byte, or four bits at the quantiles of a normal distribution."""


class SnapshotRef(FrozenConfig):
    """Reference to a snapshot of a dataset in the image database."""

    digest: str
    dataset: str
    training_digest: str
    """Digest of the training rows alone, see `Snapshot.training_digest`."""
    train_count: int
    held_out_count: int
    inputs: str | None = None
    """Digest of the dataset's rows that the snapshot was made from, see `sdlora.store.inputs`; None if unknown."""


class BaseModelRef(FrozenConfig):
    """Reference to a base model: a diffusers folder of safetensors; `digest` covers its weights and settings.

    `quantize` applies to the frozen denoiser in training only. Drawing, evaluation and export use the stored weights,
    so `quantize` belongs to the identity of a training run, not to the identity of the base model.
    """

    name: str
    folder: Path
    digest: str
    quantize: Quantization | None = None


ADAPTER_WEIGHTS = "pytorch_lora_weights.safetensors"
"""File name of an adapter in the format of diffusers and peft, inside the adapter's folder."""


RESTORE_ADAPTER = (
    "`sdlora doctor --deep --repair` restores it if a whole copy exists; without one, delete the run folder and train "
    "again."
)
"""Remedy for a missing or damaged file of an adapter."""


UNKNOWN_SNAPSHOT = "unknown"
"""Snapshot of an adapter that was adopted from a file, because its training images are unknown."""


class AdapterRef(FrozenConfig):
    """Reference to a trained adapter: a folder with the weights in both formats.

    `digest` is the SHA-256 of the file `ADAPTER_WEIGHTS`; `run_digest` names the inputs that made it.
    `snapshot_digest` is `UNKNOWN_SNAPSHOT` for an adapter that was adopted from a file.
    """

    folder: Path
    digest: str
    base_digest: str
    snapshot_digest: str
    run_digest: str
