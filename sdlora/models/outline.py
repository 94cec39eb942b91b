"""Networks without memory for weights, and comparison of their size with the weights' files before one is built."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from sdlora.core.errors import WeightsError
from sdlora.core.quoting import escaped
from sdlora.core.tensor_header import read_header
from sdlora.models.families.layouts import read_json
from sdlora.models.files.folder_check import weights_files

# A file may lack a tied weight, and numbers that follow from settings, such as positions.
_FACTOR, _EXTRA_NUMBERS = 1.1, 2**22
_EXTRA_TENSORS = 64


def checked_outline(part_class: Any, folder: Path, part: str, files: Sequence[Path] | None = None) -> nn.Module:
    """Build a network on the meta device, with layers and shapes but no memory for weights.

    Settings that describe a larger network than the weights' files hold are refused before any memory is taken. Fewer
    tensors than expected are found later, when the weights are loaded.

    Args:
        part_class: class of the network in diffusers or transformers.
        folder: folder of the base model.
        part: folder of the network in the base model, with its `config.json`.
        files: files with the network's weights, perhaps among others; by default the files in its folder.

    Raises:
        WeightsError: the settings describe no network, or a larger one than the files hold.
    """
    settings = read_json(folder / part / "config.json")
    headers = [read_header(file) for file in files or weights_files(folder, part)]
    tensors = sum(len(header.shapes) for header in headers)
    numbers = sum(prod(shape) for header in headers for shape in header.shapes.values())
    try:
        with torch.device("meta"), _at_most(2 * tensors + _EXTRA_TENSORS):
            if issubclass(part_class, ModelMixin):
                outline: nn.Module = part_class.from_config(settings)
            else:
                outline = part_class(part_class.config_class(**settings))
    except _TooManyTensorsError as error:
        raise WeightsError(_misfit(folder, part, "more tensors", f"{tensors:,}")) from error
    except Exception as error:  # wrong settings surface as ValueError, TypeError, ZeroDivisionError and others
        raise WeightsError(
            f"base_model.source: {folder / part / 'config.json'} describes no network ({type(error).__name__}: "
            f"{escaped(error)}). Copy the file again."
        ) from error
    built = sum(tensor.numel() for tensor in (*outline.parameters(), *outline.buffers()))
    if built > _FACTOR * numbers + _EXTRA_NUMBERS:
        raise WeightsError(_misfit(folder, part, f"{built:,} numbers", f"{numbers:,}"))
    return outline


class _TooManyTensorsError(Exception):
    pass


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Stop the building of a network in this thread at its parameter number `count`."""
    thread, built = threading.get_ident(), 0

    def on_parameter(_module: nn.Module, _name: str, _parameter: nn.Parameter | None) -> None:
        nonlocal built
        if threading.get_ident() == thread:
            built += 1
            if built > count:
                raise _TooManyTensorsError

    hook = register_module_parameter_registration_hook(on_parameter)
    try:
        yield
    finally:
        hook.remove()


def _misfit(folder: Path, part: str, built: str, stored: str) -> str:
    return (
        f"base_model.source: {folder / part / 'config.json'} describes a network with {built}, its weights' files hold "
        f"{stored}. The weights and the settings belong to different models; copy the folder again."
    )
