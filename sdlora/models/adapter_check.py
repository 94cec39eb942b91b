"""Checks of an adapter's files before any network is built: against the base's layers, and for finite numbers."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from sdlora.core.errors import WeightsError
from sdlora.core.quoting import quoted
from sdlora.core.tensor_header import Shape, read_header
from sdlora.models.adapter_file import OUTER_NAME, AdapterPart, read_adapter_file
from sdlora.models.families.layouts import find_layout
from sdlora.models.files.folder_check import weights_files

_CHUNK = 2**22  # numbers that are compared at a time


def check_against_base(path: Path, base_folder: Path) -> dict[str, AdapterPart]:
    """Check that every update of an adapter's diffusers file has the shape of a weight of the base, and is finite.

    Returns:
        The parts of the adapter, by the part's folder in the base model.
    Raises:
        WeightsError: the file is damaged, has a layer that the base has not, another shape, or numbers that are not
            finite.
    """
    layout = find_layout(base_folder)
    parts = read_adapter_file(path)
    known = {layout.denoiser, *(text.encoder for text in layout.text_of(base_folder))}
    if layout.denoiser not in parts or not known >= parts.keys():
        raise WeightsError(
            f"{path} does not fit the base model: it changes {', '.join(map(quoted, sorted(parts)))}, but "
            f"{layout.title} has {', '.join(sorted(known))}. Choose the base model that the adapter was trained on."
        )
    for name, part in parts.items():
        shapes = layer_shapes(base_folder, name)
        for layer, update in part.layers.items():
            shape = shapes.get(layer)
            if shape is None or (update.rows, update.columns) != (shape[0], prod(shape[1:])):
                found = f"{update.rows} x {update.columns}"
                expected = "no such layer" if shape is None else f"{shape[0]} x {prod(shape[1:])}"
                raise WeightsError(
                    f"{path} does not fit the base model: its update of {quoted(f'{name}.{layer}')} is {found}, the "
                    f"base has {expected}. Restore the file, or train an adapter for this base model."
                )
    require_finite(path)
    return parts


def layer_shapes(base_folder: Path, part: str) -> dict[str, Shape]:
    """Return the shapes of the weights of linear and convolution layers of one part, from its files' headers.

    A weight with fewer than two dimensions belongs to a norm.
    """
    shapes: dict[str, Shape] = {}
    for file in weights_files(base_folder, part):
        for name, shape in read_header(file).shapes.items():
            if name.endswith(".weight") and len(shape) >= 2:
                shapes[name.removesuffix(".weight").removeprefix(OUTER_NAME)] = shape
    return shapes


def require_finite(path: Path) -> None:
    """Check that all numbers of a safetensors file are finite.

    Raises:
        WeightsError: a tensor has a number that is NaN or infinite.
    """
    names = list(not_finite(path))
    if names:
        raise WeightsError(
            f"{path}: {len(names)} tensors have numbers that are not finite (NaN or infinite), such as "
            f"{quoted(names[0])}. Restore the file or train the adapter again."
        )


def not_finite(path: Path) -> Iterator[str]:
    """Yield the names of the tensors with a number that is not finite in fp32; tensors of other types are left out."""
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            if file.get_slice(name).get_dtype() in _DTYPES and not all_finite(file.get_tensor(name)):
                yield name


_DTYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


def all_finite(tensor: Tensor) -> bool:
    """Return True if all numbers of a tensor are finite in fp32, with little memory."""
    return all(bool(torch.isfinite(chunk.float()).all()) for chunk in tensor.flatten().split(_CHUNK))
