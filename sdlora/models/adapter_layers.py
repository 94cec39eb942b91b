"""Shape and rank of an adapter's update of one layer, from the shapes of its tensors alone.

Tensors are named as in LyCORIS. No tensor is read, so a file's claims are checked before any memory is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from sdlora.core.tensor_header import Shape

Shapes = Mapping[str, Shape]
"""Shapes of one layer's tensors by LyCORIS name, such as "lora_down.weight"."""
_Matrix = tuple[int, int, int]  # rank, rows, columns


@dataclass(frozen=True)
class UpdateShape:
    """Shape of an update.

    Attributes:
        method: kind of the update.
        rank: inner dimension of the factors; 0 for a Kronecker product of two matrices without factors.
        rows: outputs of the layer.
        columns: inputs of the layer, times the area of the kernel for a convolution.
    """

    method: Literal["lora", "dora", "loha", "lokr"]
    rank: int
    rows: int
    columns: int


def update_shape(shapes: Shapes, *, lengths_of_rows: bool = False) -> UpdateShape:
    """Compute the shape of the change that the tensors make to a layer's weight.

    Args:
        shapes: shapes of the layer's tensors.
        lengths_of_rows: a DoRA has the lengths of rows, as sdlora writes it; old files of others have those of columns.

    Raises:
        ValueError: a tensor is missing, belongs to another method, or does not fit the others.
    """
    methods = sorted({suffix.split("_", 1)[0] for suffix in shapes} & _METHODS.keys())
    if len(methods) != 1:
        raise ValueError(f"tensors of {' and '.join(methods)} together" if methods else "it has no factors")
    update = _METHODS[methods[0]](shapes)
    if "alpha" in shapes and prod(shapes["alpha"]) != 1:
        raise ValueError(f"alpha has the shape {list(shapes['alpha'])} and is no single number")
    if "dora_scale" not in shapes:
        return update
    lengths = prod(shapes["dora_scale"])
    if lengths != update.rows and (lengths_of_rows or update.columns % max(lengths, 1)):
        raise ValueError(f"dora_scale has {lengths} lengths for {update.rows} rows")
    return replace(update, method="dora")


def _low_rank(shapes: Shapes) -> UpdateShape:
    down, up = _factor(shapes, "lora_down.weight"), _factor(shapes, "lora_up.weight")
    if "lora_mid.weight" in shapes:  # three successive convolutions: 1x1, k x k, 1x1
        middle = _factor(shapes, "lora_mid.weight")
        _require_equal("lora_mid.weight", middle[1], "lora_down.weight", down[0])
        _require_equal("lora_up.weight", prod(up[1:]), "lora_mid.weight", middle[0])
        return UpdateShape("lora", down[0], up[0], prod(down[1:]) * prod(middle[2:]))
    _require_equal("lora_up.weight", prod(up[1:]), "lora_down.weight", down[0])
    return UpdateShape("lora", down[0], up[0], prod(down[1:]))


def _hadamard(shapes: Shapes) -> UpdateShape:
    first, second = (_product(shapes, f"hada_w{side}", f"hada_t{side}") for side in (1, 2))
    if first[1:] != second[1:]:
        raise ValueError(f"its two products are {first[1]} x {first[2]} and {second[1]} x {second[2]} large")
    return UpdateShape("loha", *first)


def _kronecker(shapes: Shapes) -> UpdateShape:
    first, second = (_whole_or_product(shapes, f"lokr_w{side}", f"lokr_t{side}") for side in (1, 2))
    return UpdateShape("lokr", second[0] or first[0], first[1] * second[1], first[2] * second[2])


def _whole_or_product(shapes: Shapes, name: str, core: str) -> _Matrix:
    if name not in shapes:
        return _product(shapes, name, core)
    matrix = _factor(shapes, name)
    return 0, matrix[0], prod(matrix[1:])


def _product(shapes: Shapes, name: str, core: str) -> _Matrix:
    """Compute the size of `name`_a `name`_b, or with a core tensor (rank, rank, k, k) of their Tucker product."""
    left, right = _factor(shapes, f"{name}_a"), _factor(shapes, f"{name}_b")
    if core in shapes:
        middle = _factor(shapes, core)
        _require_equal(core, middle[0], f"{name}_a", left[0])
        _require_equal(core, middle[1], f"{name}_b", right[0])
        return right[0], prod(left[1:]), prod(right[1:]) * prod(middle[2:])
    _require_equal(f"{name}_a", prod(left[1:]), f"{name}_b", right[0])
    return right[0], left[0], prod(right[1:])


_METHODS: Mapping[str, Callable[[Shapes], UpdateShape]] = {"lora": _low_rank, "hada": _hadamard, "lokr": _kronecker}


def _factor(shapes: Shapes, name: str) -> Shape:
    if name not in shapes:
        raise ValueError(f"{name} is missing")
    shape = shapes[name]
    if len(shape) < 2 or 0 in shape:
        raise ValueError(f"{name} has the shape {list(shape)} and is no matrix")
    return shape


def _require_equal(name: str, value: int, other_name: str, other_value: int) -> None:
    if value != other_value:
        raise ValueError(f"{name} has rank {value} and {other_name} has rank {other_value}")
