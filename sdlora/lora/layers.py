"""An adapter as plain tensors: the form that every file format is written from and compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from peft.tuners.lora import LoraLayer as PeftLayer
from torch import Tensor, nn

from sdlora.errors import WeightsError

ADAPTER_NAME = "default"


@dataclass(frozen=True)
class LowRankUpdate:
    """The update of one layer.

    Attributes:
        down: A, (rank, in) or (rank, in, k, k) for a convolution.
        up: B, (out, rank) or (out, rank, 1, 1).
        alpha: the update is scaled by alpha / rank.
    """

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def delta(self) -> Tensor:
        """What is added to the layer's weight, in the weight's shape: (alpha / rank) B A."""
        product = self.up.flatten(1) @ self.down.flatten(1)  # (out, in * k * k)
        return (product * (self.alpha / self.rank)).view(self.up.shape[0], *self.down.shape[1:])


def collect_updates(model: nn.Module) -> dict[str, LowRankUpdate]:
    """The updates of all adapted layers by full layer name, on the CPU in fp32.

    Raises:
        WeightsError: the model has no adapter.
    """
    updates = {
        name: LowRankUpdate(
            down=_stored(layer.lora_A[ADAPTER_NAME].weight),
            up=_stored(layer.lora_B[ADAPTER_NAME].weight),
            alpha=float(layer.lora_alpha[ADAPTER_NAME]),
        )
        for name, layer in model.named_modules()
        if isinstance(layer, PeftLayer)
    }
    if not updates:
        raise WeightsError(f"This {type(model).__name__} has no adapter to save. Call attach_lora first.")
    return updates


def require_equal(written: Mapping[str, LowRankUpdate], expected: Mapping[str, LowRankUpdate], file: str) -> None:
    """Compare what a file says with what was meant, layer by layer, as the update each would make.

    Raises:
        WeightsError: a layer is missing, unexpected or different.
    """
    if written.keys() != expected.keys():
        strange = sorted(written.keys() ^ expected.keys())
        raise WeightsError(f"{file} does not hold the adapter that was written: {strange[:3]} differ. It was removed.")
    for name, update in expected.items():
        if not torch.equal(written[name].delta(), update.delta()):
            raise WeightsError(f"{file} holds another update of layer {name} than was written. It was removed.")


def _stored(weight: Tensor) -> Tensor:
    return weight.detach().to("cpu", torch.float32).contiguous()
