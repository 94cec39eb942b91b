"""Conversion of a LoRA file of another program to an adapter of sdlora.

Files of kohya, ComfyUI, diffusers and peft are read: LoRA with any rank and alpha per layer, and DoRA. An adapter of
sdlora has one rank and one scale. So the scales go into the factors B, and smaller ranks are filled with zeros, which
changes no product.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sdlora.core.errors import BaseMismatchError, WeightsError
from sdlora.core.files import file_sha256
from sdlora.core.foreign_json import parse_json
from sdlora.core.quoting import quoted
from sdlora.core.refs import UNKNOWN_SNAPSHOT, AdapterRef, BaseModelRef
from sdlora.core.tensor_header import MAX_HEADER_BYTES, read_header
from sdlora.lora.config import LoraConfig, ResolvedLora
from sdlora.lora.foreign_layers import Place, misfit, part_of, places_of, plain_name
from sdlora.lora.formats.inspect import inspect_adapter
from sdlora.lora.formats.recognise import normalise_key
from sdlora.lora.manifest import AdapterOrigin
from sdlora.lora.save import save_updates
from sdlora.lora.targets import matching_layers
from sdlora.lora.text import text_layers
from sdlora.lora.updates import DecomposedUpdate, LayerUpdate, LowRankUpdate
from sdlora.models import parts
from sdlora.models.adapter_check import layer_shapes
from sdlora.models.adapter_file import METADATA_KEY, OUTER_NAME
from sdlora.models.families import family_of
from sdlora.models.families.base import Family

_VERSION = "1"  # raised when the same file gives other bytes
_METHODS = {"LoRA", "DoRA"}
_FACTORS = {"lora_down.weight", "lora_up.weight"}


@dataclass(frozen=True)
class _Fitted:
    """Updates of a file by the base's layers, with the names of the file's methods."""

    updates: dict[Place, LowRankUpdate]
    methods: set[str]


def conversion_digest(base: BaseModelRef, file_digest: str) -> str:
    """Return the digest that stands for the training of a converted adapter.

    Args:
        file_digest: SHA-256 of the file.
    """
    return hashlib.sha256(f"{base.digest}/{file_digest}/{_VERSION}".encode()).hexdigest()


def convert_adapter(file: Path, base: BaseModelRef, folder: Path, name: str) -> AdapterRef:
    """Convert an adapter file of another program to an adapter folder, after comparing its layers with the base's.

    Args:
        file: the `.safetensors` file.
        base: base model that the adapter was made for.
        folder: destination; an adapter in it is replaced.
        name: name of the adapter.

    Raises:
        BaseMismatchError: the file was made for another base.
        WeightsError: the file is damaged, no LoRA or DoRA, or changes layers that adapters of sdlora leave unchanged.
        StorageError: the disk is full or not writable.
    """
    family = family_of(base.folder)
    fitted = _fit(file, family)
    updates = _without_unchanged_text(file, fitted.updates, family)
    config = _settings(file, updates, fitted.methods, family)
    weights = _weights(base, updates, config)
    filled = {_full_name(place): _padded(update, _rank(config, place)) for place, update in updates.items()}
    scheduler = parts.load_scheduler(base).config
    sha256 = file_sha256(file)
    origin = AdapterOrigin(
        name=name,
        snapshot_digest=UNKNOWN_SNAPSHOT,
        run_digest=conversion_digest(base, sha256),
        prediction_type=scheduler.get("prediction_type", "flow"),
        resolution_px=family.native_resolution,
        details={"sdlora.converted_from": sha256},
    )
    return save_updates(folder, filled, weights, config, base, origin)


def fits(file: Path, base: BaseModelRef) -> bool:
    """Return True if the base model has the layers of an adapter file, in the same shapes.

    Raises:
        WeightsError: the file is damaged, or no LoRA or DoRA.
    """
    try:
        _fit(file, family_of(base.folder))
    except BaseMismatchError:
        return False
    return True


def _fit(file: Path, family: Family) -> _Fitted:
    """Read the updates of a file, and find the layers of the base that they change."""
    facts = inspect_adapter(file)
    if facts.problems:
        raise WeightsError(f"{file} cannot be used: {facts.problems[0]}")
    methods = set(facts.method.split(", "))
    if len(methods) != 1 or not methods <= _METHODS:
        raise WeightsError(f"{file} is a {facts.method}. Only a LoRA or a DoRA of all its layers can be converted.")
    metadata = read_header(file).metadata
    if metadata.get("sdlora.dora_rule") == "comfyui":
        raise WeightsError(f"{file} is a DoRA by ComfyUI's rule. Give the file that was exported to it.")
    places = places_of(family, joined=methods == {"LoRA"})
    updates: dict[Place, LowRankUpdate] = {}
    for layer, update in _read(file, metadata).items():
        key = plain_name(layer)
        if key not in places:
            raise misfit(file, f"it has no layer {quoted(layer)}", facts.family, family)
        for place in places[key]:
            if place in updates:
                raise WeightsError(f"{file} changes {quoted(place.layer)} twice, once as {quoted(layer)}.")
            updates[place] = part_of(update, place, file, facts.family, family)
    return _Fitted(updates, methods)


def _read(file: Path, metadata: Mapping[str, str]) -> dict[str, LowRankUpdate]:
    """Read the updates by the file's names, each with a scale of 1."""
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_file(file).items():
        layer, suffix = normalise_key(key) or (key, "")
        # peft's lengths of a convolution are (1, out, 1, 1); in other files a first side of 1 means columns.
        is_of_peft = suffix == "dora_scale" and not key.endswith("dora_scale")
        groups.setdefault(layer, {})[suffix] = tensor.float().flatten() if is_of_peft else tensor.float()
    settings = _peft_settings(metadata)
    updates = {}
    for layer, tensors in groups.items():
        unknown = tensors.keys() - {*_FACTORS, "alpha", "dora_scale"}
        if unknown or not tensors.keys() >= _FACTORS:
            raise WeightsError(
                f"{file}: {quoted(layer)} has the tensors {', '.join(map(quoted, sorted(tensors)))}, expected "
                f"{' and '.join(sorted(_FACTORS))}. Other updates cannot be converted."
            )
        down, up = tensors["lora_down.weight"], tensors["lora_up.weight"]
        rank = down.shape[0]
        up = up * (_alpha(layer, tensors, settings, rank) / rank)
        if "dora_scale" not in tensors:
            updates[layer] = LowRankUpdate(down, up, float(rank))
            continue
        lengths = tensors["dora_scale"]
        if lengths.numel() != up.shape[0] or (lengths.ndim > 1 and lengths.shape[0] == 1 and up.shape[0] > 1):
            raise WeightsError(f"{file}: {quoted(layer)} is a DoRA with lengths of columns, which cannot be converted.")
        updates[layer] = DecomposedUpdate(down, up, float(rank), lengths.flatten())
    return updates


def _peft_settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        settings = parse_json(metadata.get(METADATA_KEY, "{}"), MAX_HEADER_BYTES)
    except ValueError:
        return {}
    return settings if isinstance(settings, dict) else {}


def _alpha(layer: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any], rank: int) -> float:
    """Return the alpha that gives the layer's scale as alpha / rank; tools take the rank if a file has none."""
    if "alpha" in tensors:
        return float(tensors["alpha"].item())
    folder, _, path = layer.partition(".")
    pattern = settings.get(f"{folder}.alpha_pattern", settings.get("alpha_pattern"))
    # peft reads the keys as regular expressions, which a stranger's file does not get to run.
    keys = pattern if isinstance(pattern, dict) else ()
    own = next((pattern[key] for key in keys if path == key or path.endswith(f".{key}")), None)
    alpha = settings.get(f"{folder}.lora_alpha", settings.get("lora_alpha", settings.get("alpha", rank)))
    if own is not None:
        alpha = own
    rslora = settings.get(f"{folder}.use_rslora", settings.get("use_rslora")) is True
    return float(alpha) * (math.sqrt(rank) if rslora else 1.0)


def _without_unchanged_text(
    file: Path, updates: Mapping[Place, LowRankUpdate], family: Family
) -> dict[Place, LowRankUpdate]:
    """Leave out text layers that change nothing, and add the missing attention layers of the text encoders as zeros."""
    denoiser = family.layout.denoiser
    kept = {place: update for place, update in updates.items() if place.part == denoiser}
    if not kept:
        raise WeightsError(f"{file} changes no layer of the {denoiser}. Such an adapter cannot be used.")
    text = {p: u for p, u in updates.items() if p.part != denoiser and u.up.any() and u.down.any()}
    if not text:
        return kept
    known = {(place.part, place.layer): place for place in _textplaces_of(family)}
    last = {
        part.folder: f"encoder.layers.{family.settings(part.folder)['num_hidden_layers'] - 1}."
        for part in family.text_parts
        if not part.uses_last_layer
    }
    for place, update in text.items():
        if (place.part, place.layer) in known and type(update) is LowRankUpdate:
            continue
        if place.part in last and place.layer.startswith(last[place.part]):
            continue  # no output passes through it
        raise WeightsError(
            f"{file} changes {quoted(place.layer)} of {place.part}. Adapters of sdlora change only the attention of "
            "text encoders, as a plain LoRA. Make the file without its text encoders."
        )
    for place in known.values():
        kept[place] = text.get(place) or LowRankUpdate(
            torch.zeros(1, place.shape[1]), torch.zeros(place.shape[0], 1), 1.0
        )
    return kept


def _textplaces_of(family: Family) -> Iterator[Place]:
    for part in family.text_parts:
        shapes = layer_shapes(family.folder, part.folder)
        for layer in text_layers(family.settings(part.folder)["num_hidden_layers"], part):
            yield Place(part.folder, layer, shapes[layer])


def _settings(file: Path, updates: Mapping[Place, LowRankUpdate], methods: set[str], family: Family) -> ResolvedLora:
    """Return the settings of the converted adapter: the largest rank, a scale of 1, and the layers by full name."""
    denoiser = family.layout.denoiser
    layers = sorted(place.layer for place in updates if place.part == denoiser)
    matched = matching_layers(layer_shapes(family.folder, denoiser), layers)
    if set(matched) != set(layers):
        other = min(set(matched) - set(layers))
        raise WeightsError(
            f"{file} changes a layer whose name is the end of {quoted(other)}, which it leaves unchanged."
        )
    rank = max(update.rank for place, update in updates.items() if place.part == denoiser)
    width, narrowest = min(
        (min(place.shape[0], prod(place.shape[1:])), place.layer) for place in updates if place.part == denoiser
    )
    if rank > width:
        raise WeightsError(f"{file} has rank {rank}, above the width of its layer {quoted(narrowest)} ({width}).")
    text_ranks = [update.rank for place, update in updates.items() if place.part != denoiser]
    return LoraConfig(
        method="dora" if methods == {"DoRA"} else "lora",
        rank=rank,
        target_modules=tuple(layers),
        text_encoder_rank=max(text_ranks, default=None),
    ).filled()


def _rank(config: ResolvedLora, place: Place) -> int:
    return config.text_encoder_rank or 1 if place.part.startswith("text_encoder") else config.rank


def _padded(update: LowRankUpdate, rank: int) -> LayerUpdate:
    missing = rank - update.rank
    down = torch.cat((update.down, update.down.new_zeros(missing, *update.down.shape[1:])))
    up = torch.cat((update.up, update.up.new_zeros(len(update.up), missing, *update.up.shape[2:])), dim=1)
    if isinstance(update, DecomposedUpdate):
        return DecomposedUpdate(down, up, float(rank), update.magnitude)
    return LowRankUpdate(down, up, float(rank))


def _weights(base: BaseModelRef, updates: Mapping[Place, LowRankUpdate], config: ResolvedLora) -> dict[str, Tensor]:
    """Return the base's weights by the adapter's names; only a DoRA needs their values."""
    values = dict(parts.load_denoiser(base).named_parameters()) if config.method == "dora" else {}
    return {
        _full_name(place): values[f"{place.layer}.weight"].detach()
        if f"{place.layer}.weight" in values and not place.part.startswith("text_encoder")
        else torch.zeros(()).expand(place.shape)
        for place in updates
    }


def _full_name(place: Place) -> str:
    outer = OUTER_NAME if place.part.startswith("text_encoder") else ""
    return f"{place.part}.{outer}{place.layer}"
