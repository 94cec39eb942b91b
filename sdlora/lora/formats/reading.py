"""Reading of adapter files by the rules of other tools: the change of a layer's weight from its tensors.

The rules are those of ComfyUI `comfy/weight_adapter`, LyCORIS `lycoris/modules`, and diffusers with peft. No code is
shared with the writing of files, so a file that passes this check is readable by these tools.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

Change = Callable[[Tensor], Tensor]
"""Function from a layer's weight W (fp32) to W' - W."""

Reader = Literal["lycoris", "comfyui"]
"""Tool whose rule applies to `dora_scale`; all tools agree on the other tensors."""

_SUFFIXES = (
    "lora_down.weight",
    "lora_up.weight",
    "lora_mid.weight",
    "alpha",
    "dora_scale",
    *(f"hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
    *(f"lokr_{part}" for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")),
)


def group_by_layer(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Group the keys of a file by layer and suffix; unknown keys are left out.

    The result has the form {"lora_unet_x": {"alpha": "lora_unet_x.alpha", ...}}.
    """
    layers: dict[str, dict[str, str]] = {}
    for key in keys:
        for suffix in _SUFFIXES:
            if key.endswith(f".{suffix}"):
                layers.setdefault(key.removesuffix(f".{suffix}"), {})[suffix] = key
    return layers


def change_of(tensors: Mapping[str, Tensor], reader: Reader = "lycoris") -> Change | None:
    """Build the change of a layer's weight from its tensors by suffix; None if the tools know no such update."""
    factors = {suffix: tensor.float() for suffix, tensor in tensors.items()}
    rank: int | None
    if {"lora_down.weight", "lora_up.weight"} <= factors.keys():
        product, rank = _low_rank(factors), factors["lora_down.weight"].shape[0]
    elif {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"} <= factors.keys():
        product, rank = _hadamard(factors), factors["hada_w1_b"].shape[0]
    elif any(suffix.startswith("lokr_w1") for suffix in factors) and any(
        suffix.startswith("lokr_w2") for suffix in factors
    ):
        product, rank = _kronecker(factors), kronecker_rank(tensors)
    else:
        return None
    # The scale is 1 without alpha, and for a Kronecker product of two matrices without factors.
    scale = factors["alpha"].item() / rank if "alpha" in factors and rank else 1.0
    magnitude = factors.get("dora_scale")

    def change(weight: Tensor) -> Tensor:
        delta = product.reshape(weight.shape) * scale
        return delta if magnitude is None else _rescale(weight, weight + delta, magnitude, reader) - weight

    return change


def kronecker_rank(tensors: Mapping[str, Tensor]) -> int | None:
    """Return the rank that divides alpha; None if neither matrix has factors."""
    for suffix in ("lokr_w2_b", "lokr_w1_b"):
        if suffix in tensors:
            return tensors[suffix].shape[0]
    return None


def _low_rank(tensors: Mapping[str, Tensor]) -> Tensor:
    down, up, middle = tensors["lora_down.weight"], tensors["lora_up.weight"], tensors.get("lora_mid.weight")
    if middle is not None:  # three successive convolutions: 1x1, k x k, 1x1
        return torch.einsum("o p, p q h w, q i -> o i h w", up.flatten(1), middle, down.flatten(1))
    return torch.mm(up.flatten(1), down.flatten(1))


def _hadamard(tensors: Mapping[str, Tensor]) -> Tensor:
    products = []
    for side in ("1", "2"):
        factor_a, factor_b, core = (
            tensors.get(f"hada_{suffix}") for suffix in (f"w{side}_a", f"w{side}_b", f"t{side}")
        )
        assert factor_a is not None and factor_b is not None
        products.append(factor_a @ factor_b if core is None else _tucker(core, factor_a, factor_b))
    return products[0] * products[1]


def _kronecker(tensors: Mapping[str, Tensor]) -> Tensor:
    matrices = []
    for side in ("1", "2"):
        if f"lokr_w{side}" in tensors:
            matrices.append(tensors[f"lokr_w{side}"])
        elif f"lokr_t{side}" in tensors:
            matrices.append(
                _tucker(*(tensors[f"lokr_{suffix}"] for suffix in (f"t{side}", f"w{side}_a", f"w{side}_b")))
            )
        else:
            factor_b = tensors[f"lokr_w{side}_b"]
            matrices.append((tensors[f"lokr_w{side}_a"] @ factor_b.flatten(1)).view(-1, *factor_b.shape[1:]))
    left, right = matrices
    return torch.kron(left.view(*left.shape, *[1] * (right.ndim - left.ndim)), right.contiguous())


def _tucker(core: Tensor, factor_a: Tensor, factor_b: Tensor) -> Tensor:
    """Compute a Tucker product: (rank, rank, k, k), (rank, out), (rank, in) -> (out, in, k, k)."""
    return torch.einsum("a b h w, a o, b i -> o i h w", core, factor_a, factor_b)


def _rescale(weight: Tensor, updated: Tensor, magnitude: Tensor, reader: Reader) -> Tensor:
    """Rescale the rows of `updated` to the lengths in `magnitude` (DoRA); old files have lengths of columns."""
    if magnitude.shape[0] == updated.shape[0]:
        # LyCORIS, diffusers and the paper divide by the lengths of the updated rows, ComfyUI by the original lengths.
        reference = weight if reader == "comfyui" else updated
        lengths = reference.flatten(1).norm(dim=1).view(-1, *[1] * (updated.ndim - 1))
    else:
        lengths = updated.transpose(0, 1).flatten(1).norm(dim=1).view(1, -1, *[1] * (updated.ndim - 2))
    rescaled: Tensor = updated * (magnitude.reshape(lengths.shape) / lengths)
    return rescaled
