"""Content of an adapter's diffusers file `pytorch_lora_weights.safetensors`, read from its header.

Keys are `<part>.<layer>.<peft's name>`, such as `unet.mid_block.attentions.0.proj_in.lora_A.weight`. The metadata has
the settings of each part: rank, alpha and the names of the layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter

from sdlora.core.config_base import FrozenConfig, first_problem
from sdlora.core.errors import WeightsError
from sdlora.core.foreign_json import parse_json
from sdlora.core.quoting import quoted
from sdlora.core.tensor_header import MAX_HEADER_BYTES, Shape, read_header
from sdlora.models.adapter_layers import UpdateShape, update_shape

METADATA_KEY = "lora_adapter_metadata"
OUTER_NAME = "text_model."
"""Outer name of a CLIP's layers in transformers 4. Files have the name, transformers 5 leaves it out."""
LYCORIS_NAMES: Mapping[str, str] = {
    "lora_A.weight": "lora_down.weight",
    "lora_B.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale",
}
"""LyCORIS' names of peft's tensors, where the two differ."""
_PEFT_MARKS = (".lora_", ".hada_", ".lokr_")
_DTYPE = "F32"  # other precisions are those of exports


class PartSettings(FrozenConfig):
    """Settings of one part, by peft's names. `sdlora` writes no others, and others could change what peft builds."""

    r: int = Field(ge=1)
    lora_alpha: float | None = Field(None, gt=0, allow_inf_nan=False)
    alpha: float | None = Field(None, gt=0, allow_inf_nan=False)
    target_modules: tuple[str, ...] = Field(min_length=1)
    bias: Literal["none"] = "none"
    use_dora: bool = False

    @property
    def scale_alpha(self) -> float | None:
        return self.alpha if self.lora_alpha is None else self.lora_alpha


@dataclass
class AdapterPart:
    """Adapter of one network.

    Attributes:
        settings: settings from the metadata.
        layers: updates by layer name; without the outer name of a CLIP's layers.
    """

    settings: PartSettings
    layers: dict[str, UpdateShape] = field(default_factory=dict)

    @property
    def methods(self) -> set[str]:
        return {update.method for update in self.layers.values()}


def split_key(key: str) -> tuple[str, str]:
    """Split a key: `unet.mid_block.x.to_q.lora_A.weight` -> (`unet.mid_block.x.to_q`, `lora_A.weight`)."""
    for mark in _PEFT_MARKS:
        layer, matched, leaf = key.rpartition(mark)
        if matched:
            return layer, mark[1:] + leaf
    return key, ""


def read_adapter_file(path: Path) -> dict[str, AdapterPart]:
    """Read the parts of an adapter from the header of its file, by the part's folder in the base model.

    Raises:
        WeightsError: the header is damaged, a layer's tensors form no update, or the layers, ranks or tensors are not
            those that the file's settings name.
    """
    header = read_header(path)
    parts = {name: AdapterPart(settings) for name, settings in _settings(path, header.metadata).items()}
    shapes: dict[tuple[str, str], dict[str, Shape]] = {}
    for key, shape in header.shapes.items():
        name, suffix = split_key(key)
        part, _, layer = name.partition(".")
        if part not in parts or not suffix:
            raise WeightsError(f"{path}: the tensor {quoted(key)} is of no layer that the file's settings name.")
        if header.dtypes[key] != _DTYPE:
            raise WeightsError(
                f"{path}: the tensor {quoted(key)} has the precision {header.dtypes[key]}, expected {_DTYPE}."
            )
        layer_shapes = shapes.setdefault((part, layer.removeprefix(OUTER_NAME)), {})
        layer_shapes[LYCORIS_NAMES.get(suffix, suffix)] = shape
    for (part, layer), layer_shapes in shapes.items():
        try:
            parts[part].layers[layer] = update_shape(layer_shapes, lengths_of_rows=True)
        except ValueError as error:
            raise WeightsError(f"{path}: {quoted(f'{part}.{layer}')} is damaged: {error}.") from error
    for name, part_of_file in parts.items():
        _compare(path, name, part_of_file)
    return parts


def _settings(path: Path, metadata: Mapping[str, str]) -> dict[str, PartSettings]:
    """Read the settings by part: {"unet.r": 8, ...} -> {"unet": PartSettings(r=8, ...)}."""
    packed: dict[str, dict[str, object]] = {}
    try:
        entries = parse_json(metadata.get(METADATA_KEY, "{}"), MAX_HEADER_BYTES)
        for key, value in entries.items():
            part, _, name = key.partition(".")
            packed.setdefault(part, {})[name] = value
        if not packed:
            raise ValueError(f"{METADATA_KEY} is missing")
        return TypeAdapter(dict[str, PartSettings]).validate_python(packed)
    except (ValueError, AttributeError) as error:  # a ValidationError is a ValueError
        raise WeightsError(
            f"{path}: the adapter's settings in its metadata are damaged ({first_problem(error)}). Restore the file."
        ) from error


def _compare(path: Path, name: str, part: AdapterPart) -> None:
    named = {layer.removeprefix(OUTER_NAME) for layer in part.settings.target_modules}
    for layers, problem in ((named - part.layers.keys(), "lacks"), (part.layers.keys() - named, "has unexpected")):
        if layers:
            raise WeightsError(
                f"{path} {problem} tensors: its settings name {len(named)} layers of {quoted(name)}, it has "
                f"{len(part.layers)}. The first difference is {quoted(min(layers))}. Restore the file."
            )
    for layer, update in part.layers.items():
        if update.rank not in (0, part.settings.r):
            raise WeightsError(
                f"{path}: {quoted(layer)} has rank {update.rank}, the file's settings have {part.settings.r}."
            )
    if len(part.methods) > 1 or part.settings.use_dora != ("dora" in part.methods):
        raise WeightsError(
            f"{path}: {name} has tensors of {' and '.join(sorted(part.methods))}, and the file's settings have "
            f"use_dora {str(part.settings.use_dora).lower()}. Restore the file."
        )
