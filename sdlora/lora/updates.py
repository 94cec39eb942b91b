"""Updates of a layer's weight as plain tensors, one class a method; every file is written from them.

`change(weight)` is W' - W. Tensors have the names of LyCORIS, which every tool reads:

LoRA   lora_down, lora_up                        (alpha / rank) up down
DoRA   the same and dora_scale                   dora_scale (W + (alpha / rank) up down) / |W + ...|, rows on their own
LoHa   hada_w1_a, hada_w1_b, hada_w2_a, hada_w2_b  (alpha / rank) (w1_a w1_b) * (w2_a w2_b)
LoKr   lokr_w1 or lokr_w1_a, lokr_w1_b, and w2   (alpha / rank) kron(w1, w2)

Sources: Hu et al. 2021, arXiv:2106.09685 (LoRA); Liu et al. 2024, arXiv:2402.09353 (DoRA); Yeh et al. 2023,
arXiv:2309.14859 (LoHa, LoKr). rsLoRA (Kalajdzievski 2023, arXiv:2312.03732) is LoRA with alpha times sqrt(rank);
PiSSA (Meng et al. 2024, arXiv:2404.02948) is LoRA with another start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


class LayerUpdate(ABC):
    """Update of one layer.

    Attributes:
        alpha: the update is scaled by alpha / rank.
    """

    alpha: float

    @property
    @abstractmethod
    def rank(self) -> int:
        """Inner dimension of the factors."""

    @abstractmethod
    def change(self, weight: Tensor) -> Tensor:
        """Compute the change that is added to the layer's weight, in the weight's shape and in fp32."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by LyCORIS name."""

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def peft_tensors(self) -> dict[str, Tensor]:
        """Return the tensors with peft's names and shapes."""
        return self.tensors()


@dataclass(frozen=True)
class LowRankUpdate(LayerUpdate):
    """LoRA: the product of two low-rank factors.

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
        """Compute (alpha / rank) B A in the weight's shape."""
        product = self.up.flatten(1) @ self.down.flatten(1)  # (out, in * k * k)
        return (product * self.scale).view(self.up.shape[0], *self.down.shape[1:])

    def change(self, weight: Tensor) -> Tensor:
        return self.delta().view(weight.shape)

    def tensors(self) -> dict[str, Tensor]:
        return {"lora_down.weight": self.down, "lora_up.weight": self.up}

    def peft_tensors(self) -> dict[str, Tensor]:
        return {"lora_A.weight": self.down, "lora_B.weight": self.up}


@dataclass(frozen=True)
class DecomposedUpdate(LowRankUpdate):
    """DoRA: the low-rank update gives each row of the weight its direction, `magnitude` its length.

    Attributes:
        magnitude: (out,) lengths of the rows.
    """

    magnitude: Tensor

    def change(self, weight: Tensor) -> Tensor:
        weight = weight.float()
        updated = weight + super().change(weight)
        lengths = updated.flatten(1).norm(dim=1)  # (out,)
        changed: Tensor = updated * (self.magnitude / lengths).view(-1, *[1] * (weight.ndim - 1)) - weight
        return changed

    def tensors(self) -> dict[str, Tensor]:
        column = self.magnitude.view(-1, *[1] * (self.down.ndim - 1))  # (out, 1) or (out, 1, 1, 1)
        return {**super().tensors(), "dora_scale": column}

    def peft_tensors(self) -> dict[str, Tensor]:
        magnitude = self.magnitude.view(1, -1, 1, 1) if self.down.ndim == 4 else self.magnitude
        return {**super().peft_tensors(), "lora_magnitude_vector": magnitude}


@dataclass(frozen=True)
class HadamardUpdate(LayerUpdate):
    """LoHa: the elementwise product of two low-rank matrices, of rank up to rank squared.

    Attributes:
        w1_a, w2_a: (out, rank).
        w1_b, w2_b: (rank, in * k * k).
    """

    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.w1_b.shape[0]

    def change(self, weight: Tensor) -> Tensor:
        return ((self.w1_a @ self.w1_b) * (self.w2_a @ self.w2_b) * self.scale).view(weight.shape)

    def tensors(self) -> dict[str, Tensor]:
        return {"hada_w1_a": self.w1_a, "hada_w1_b": self.w1_b, "hada_w2_a": self.w2_a, "hada_w2_b": self.w2_b}


@dataclass(frozen=True)
class KroneckerUpdate(LayerUpdate):
    """LoKr: the Kronecker product of a small and a large matrix.

    Attributes:
        w1: (out_l, in_m).
        w2: (out_k, in_n) or (out_k, in_n, k, k); or its two factors (out_k, rank) and (rank, in_n * k * k).
        requested_rank: rank in the settings; layers too small to gain from factors hold w2 as one matrix.
    """

    w1: Tensor
    w2: Tensor | tuple[Tensor, Tensor]
    alpha: float
    requested_rank: int

    @property
    def rank(self) -> int:
        return self.requested_rank

    def change(self, weight: Tensor) -> Tensor:
        w2 = self.w2[0] @ self.w2[1] if isinstance(self.w2, tuple) else self.w2
        # w1 is (out_l, in_m); as (out_l, in_m, 1, 1) its product with a convolution kernel is a kernel.
        product = torch.kron(self.w1.view(*self.w1.shape, *[1] * (w2.ndim - 2)), w2.contiguous())
        return (product * self.scale).reshape(weight.shape)

    def tensors(self) -> dict[str, Tensor]:
        if isinstance(self.w2, tuple):
            return {"lokr_w1": self.w1, "lokr_w2_a": self.w2[0], "lokr_w2_b": self.w2[1]}
        # If neither matrix has factors, every tool except peft ignores alpha and uses a scale of 1.
        return {"lokr_w1": self.w1 * self.scale, "lokr_w2": self.w2}

    def peft_tensors(self) -> dict[str, Tensor]:
        return {**self.tensors(), "lokr_w1": self.w1}
