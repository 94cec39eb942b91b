"""How other tools read adapter files: what a layer's tensors make of its weight.

Written from the tools' rules alone (ComfyUI `comfy/weight_adapter`, LyCORIS `lycoris/modules`, diffusers with peft)
and sharing nothing with the code that writes, so that a file which passes here is one that those tools understand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

Change = Callable[[Tensor], Tensor]
"""From a layer's weight W (fp32) to W' - W."""

Reader = Literal["lycoris", "comfyui"]
"""Whose rule a `dora_scale` is read by; all other parts mean the same to all."""

_PARTS = (
    "lora_down.weight",
    "lora_up.weight",
    "lora_mid.weight",
    "alpha",
    "dora_scale",
    *(f"hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
    *(f"lokr_{part}" for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")),
)


def group_by_layer(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Keys of a file by layer and part: {"lora_unet_x": {"alpha": "lora_unet_x.alpha", ...}}; strange keys are left."""
    layers: dict[str, dict[str, str]] = {}
    for key in keys:
        for part in _PARTS:
            if key.endswith(f".{part}"):
                layers.setdefault(key.removesuffix(f".{part}"), {})[part] = key
    return layers


def change_of(parts: Mapping[str, Tensor], reader: Reader = "lycoris") -> Change | None:
    """What one layer's tensors do to its weight; None if they are no update that the tools know."""
    tensors = {part: tensor.float() for part, tensor in parts.items()}
    rank: int | None
    if {"lora_down.weight", "lora_up.weight"} <= tensors.keys():
        product, rank = _low_rank(tensors), tensors["lora_down.weight"].shape[0]
    elif {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"} <= tensors.keys():
        product, rank = _hadamard(tensors), tensors["hada_w1_b"].shape[0]
    elif any(part.startswith("lokr_w1") for part in tensors) and any(part.startswith("lokr_w2") for part in tensors):
        product, rank = _kronecker(tensors), kronecker_rank(parts)
    else:
        return None
    # A missing alpha is a scale of 1, and so is any alpha of a Kronecker product of two whole matrices.
    scale = tensors["alpha"].item() / rank if "alpha" in tensors and rank else 1.0
    magnitude = tensors.get("dora_scale")

    def change(weight: Tensor) -> Tensor:
        delta = product.reshape(weight.shape) * scale
        return delta if magnitude is None else _rescaled(weight, weight + delta, magnitude, reader) - weight

    return change


def kronecker_rank(parts: Mapping[str, Tensor]) -> int | None:
    """The rank that alpha is divided by; None where both matrices are whole."""
    for part in ("lokr_w2_b", "lokr_w1_b"):
        if part in parts:
            return parts[part].shape[0]
    return None


def _low_rank(tensors: Mapping[str, Tensor]) -> Tensor:
    down, up, middle = tensors["lora_down.weight"], tensors["lora_up.weight"], tensors.get("lora_mid.weight")
    if middle is not None:  # three convolutions in a row: 1x1, k x k, 1x1
        return torch.einsum("o p, p q h w, q i -> o i h w", up.flatten(1), middle, down.flatten(1))
    return torch.mm(up.flatten(1), down.flatten(1))


def _hadamard(tensors: Mapping[str, Tensor]) -> Tensor:
    factors = []
    for side in ("1", "2"):
        first, second, core = (tensors.get(f"hada_{part}") for part in (f"w{side}_a", f"w{side}_b", f"t{side}"))
        assert first is not None and second is not None
        factors.append(first @ second if core is None else _tucker(core, first, second))
    return factors[0] * factors[1]


def _kronecker(tensors: Mapping[str, Tensor]) -> Tensor:
    matrices = []
    for side in ("1", "2"):
        if f"lokr_w{side}" in tensors:
            matrices.append(tensors[f"lokr_w{side}"])
        elif f"lokr_t{side}" in tensors:
            matrices.append(_tucker(*(tensors[f"lokr_{part}"] for part in (f"t{side}", f"w{side}_a", f"w{side}_b"))))
        else:
            second = tensors[f"lokr_w{side}_b"]
            matrices.append((tensors[f"lokr_w{side}_a"] @ second.flatten(1)).view(-1, *second.shape[1:]))
    left, right = matrices
    return torch.kron(left.view(*left.shape, *[1] * (right.ndim - left.ndim)), right.contiguous())


def _tucker(core: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(rank, rank, k, k), (rank, out), (rank, in) -> (out, in, k, k)."""
    return torch.einsum("a b h w, a o, b i -> o i h w", core, first, second)


def _rescaled(weight: Tensor, turned: Tensor, magnitude: Tensor, reader: Reader) -> Tensor:
    """DoRA: `turned` with the lengths that `magnitude` gives to its rows, or to its columns in files of old."""
    if magnitude.shape[0] == turned.shape[0]:
        # LyCORIS, diffusers and the paper divide by the lengths of the turned rows, ComfyUI by the original ones'.
        measured = weight if reader == "comfyui" else turned
        lengths = measured.flatten(1).norm(dim=1).view(-1, *[1] * (turned.ndim - 1))
    else:
        lengths = turned.transpose(0, 1).flatten(1).norm(dim=1).view(1, -1, *[1] * (turned.ndim - 2))
    rescaled: Tensor = turned * (magnitude.reshape(lengths.shape) / lengths)
    return rescaled
