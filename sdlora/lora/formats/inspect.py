"""Inspection of adapter files of sdlora, kohya, LyCORIS, diffusers and peft."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from sdlora.core.errors import WeightsError
from sdlora.core.refs import ADAPTER_WEIGHTS
from sdlora.lora.formats.diffusers import METADATA_KEY
from sdlora.lora.formats.recognise import family_of_file, method_of, normalise_key, part_of
from sdlora.lora.formats.sidecar import sidecar_metadata
from sdlora.models.files.folder_check import PICKLE_SUFFIXES, pickle_message

_MAX_WORDS = 8


@dataclass(frozen=True)
class AdapterFacts:
    """Facts about one adapter file.

    Attributes:
        file: name of the file, without folder.
        layout: format of the file.
        method: LoRA, DoRA, LoHa, ...; several if the layers differ.
        ranks: number of layers by rank; rank 0 means matrices without factors.
        scales: number of layers by effective scale alpha / rank.
        alphas: alphas in the file; empty if there are none.
        layers: number of changed layers of the denoiser and of each text encoder.
        precisions: precisions of the tensors.
        parameters: number of parameters.
        words: trigger phrase and most frequent captions or tags.
        origin: name and digest of the base, snapshot, steps and so on, if the file or its sidecar files have them.
        hashes: hashes of the file, by the names that tools show.
        notes: warnings for the user.
    """

    file: str
    size_bytes: int
    layout: str
    family: str
    method: str
    ranks: dict[int, int]
    scales: dict[float, int]
    alphas: tuple[float, ...]
    layers: dict[str, int]
    precisions: tuple[str, ...]
    parameters: int
    words: tuple[str, ...]
    origin: dict[str, str]
    hashes: dict[str, str]
    notes: tuple[str, ...] = field(default=())


def inspect_adapter(path: Path) -> AdapterFacts:
    """Inspect an adapter file, or the file in an adapter folder, without loading it into a model.

    Raises:
        WeightsError: the file is missing, damaged, pickled, or no adapter.
    """
    file_path = _file_of(path)
    try:
        with safe_open(file_path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file_path} is damaged or no safetensors file ({error}). Copy the file again.") from error
    described = {**sidecar_metadata(file_path), **metadata}
    layers = _group_by_layer(tensors)
    if not layers:
        raise WeightsError(
            f"{file_path} holds no adapter: none of its {len(tensors)} tensors is a LoRA's, LoHa's or LoKr's "
            f"(first: {next(iter(sorted(tensors)), 'none')}). A whole model is opened as base_model.source."
        )
    settings = _peft_settings(metadata)
    ranks, alphas, scales = _sizes(layers, settings)
    hashes, disagreements = _hashes(file_path, metadata)
    methods = Counter(method_of(tensors_of_layer) for tensors_of_layer in layers.values())
    kohya = any(key.endswith((".lora_down.weight", ".alpha", ".dora_scale")) for key in tensors)
    return AdapterFacts(
        file=file_path.name,
        size_bytes=file_path.stat().st_size,
        layout="kohya / LyCORIS" if kohya or any(key.startswith("lora_") for key in tensors) else "diffusers / peft",
        family=family_of_file(layers, metadata),
        method=", ".join(methods),
        ranks=dict(ranks),
        scales=dict(scales),
        alphas=tuple(sorted(alphas)),
        layers=dict(Counter(part_of(layer) for layer in layers)),
        precisions=tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})),
        parameters=sum(math.prod(tensor.shape) for key, tensor in tensors.items() if not key.endswith(".alpha")),
        words=_words(described),
        origin=_origin(described),
        hashes=hashes,
        notes=(*disagreements, *_notes(alphas, methods, metadata, kohya)),
    )


def _file_of(path: Path) -> Path:
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise WeightsError(pickle_message(path).removeprefix("base_model.source: "))
    if path.is_dir():
        for file in (path / ADAPTER_WEIGHTS, *sorted(path.glob("*.safetensors"))):
            if file.is_file():
                return file
        raise WeightsError(f"{path} holds no .safetensors file. Give an adapter's file, or its folder.")
    if not path.is_file():
        raise WeightsError(f"There is no file {path}. Give an adapter's .safetensors file, or its folder.")
    return path


def _group_by_layer(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        layer_and_suffix = normalise_key(key)
        if layer_and_suffix:
            layer, suffix = layer_and_suffix
            layers.setdefault(layer, {})[suffix] = tensor
    # A layer without factors changes nothing.
    return {
        layer: layer_tensors
        for layer, layer_tensors in layers.items()
        if layer_tensors.keys() - {"alpha", "dora_scale"}
    }


def _peft_settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        settings = json.loads(metadata.get(METADATA_KEY, "{}"))
    except ValueError:
        return {}
    return settings if isinstance(settings, dict) else {}


def _sizes(
    layers: Mapping[str, Mapping[str, Tensor]], settings: Mapping[str, Any]
) -> tuple[Counter[int], set[float], Counter[float]]:
    """Count ranks and effective scales, and collect the alphas; without an alpha, tools use a scale of 1."""
    ranks: Counter[int] = Counter()
    alphas: set[float] = set()
    scales: Counter[float] = Counter()
    for layer, layer_tensors in layers.items():
        rank = rank_of(layer_tensors)
        folder = layer.split(".", 1)[0]
        alpha = (
            layer_tensors["alpha"].item()
            if "alpha" in layer_tensors
            else _setting(settings, folder, "lora_alpha", "alpha")
        )
        ranks[rank] += 1
        if alpha is not None:
            alphas.add(float(alpha))
        divisor = math.sqrt(rank) if _setting(settings, folder, "use_rslora") else rank
        scales[round(float(alpha) / divisor, 6) if alpha is not None and rank else 1.0] += 1
    return ranks, alphas, scales


def rank_of(tensors: Mapping[str, Tensor]) -> int:
    """Return the inner dimension of a layer's factors; 0 for a Kronecker product of two matrices without factors."""
    for suffix in ("lora_down.weight", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if suffix in tensors:
            return tensors[suffix].shape[0]
    return 0


def _setting(settings: Mapping[str, Any], folder: str, *names: str) -> Any:
    for name in names:
        for key in (f"{folder}.{name}", name):
            if key in settings:
                return settings[key]
    return None


def _words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    words = [metadata[key] for key in ("modelspec.trigger_phrase", "ss_instance_token") if metadata.get(key)]
    try:
        counts: Counter[str] = Counter()
        for tags in json.loads(metadata.get("ss_tag_frequency", "{}")).values():
            counts.update({str(tag).strip(): int(count) for tag, count in tags.items()})
        words += [tag for tag, _ in counts.most_common(_MAX_WORDS)]
    except (ValueError, AttributeError, TypeError):
        pass  # metadata of other tools may have any form; only the words are lost
    return tuple(words)


_ORIGIN_KEYS = {
    "title": ("modelspec.title", "ss_output_name"),
    "base model": ("ss_sd_model_name", "sdlora.base_name"),
    "base digest": ("sdlora.base_digest", "ss_new_sd_model_hash", "ss_sd_model_hash"),
    "snapshot": ("sdlora.snapshot_digest",),
    "run": ("sdlora.run_digest",),
    "steps": ("ss_steps", "ss_max_train_steps"),
    "training images": ("ss_num_train_images",),
    "prior images": ("ss_num_reg_images",),
    "learning rate": ("ss_learning_rate",),
    "made with": ("ss_network_module", "modelspec.implementation"),
    "prediction": ("modelspec.prediction_type",),
}


def _origin(metadata: Mapping[str, str]) -> dict[str, str]:
    values = {
        label: next((metadata[key] for key in keys if metadata.get(key)), "") for label, keys in _ORIGIN_KEYS.items()
    }
    return {label: value for label, value in values.items() if value}


def _hashes(path: Path, metadata: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    with path.open("rb") as file:
        file_digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        data_digest = hashlib.file_digest(file, "sha256").hexdigest()
    hashes = {
        "SHA-256": file_digest,
        "AutoV2": file_digest[:10],
        "AutoV3": data_digest[:12],
        "sshs_model_hash": data_digest,
    }
    claimed = metadata.get("sshs_model_hash")
    if claimed and claimed != data_digest:
        return hashes, [
            f"Its tensors were changed: sshs_model_hash {claimed[:12]} is given, {data_digest[:12]} is found."
        ]
    return hashes, []


def _notes(alphas: set[float], methods: Mapping[str, int], metadata: Mapping[str, str], kohya: bool) -> list[str]:
    notes = []
    if not alphas:
        notes.append("No alpha is given: tools take a scale of 1.")
    if "DoRA" in methods and kohya:
        comfyui = metadata.get("sdlora.dora_rule") == "comfyui"
        notes.append(
            "dora_scale is written for ComfyUI's rule; LyCORIS divides by other lengths."
            if comfyui
            else "dora_scale is by LyCORIS' rule; ComfyUI divides by other lengths: sdlora export --for comfyui."
        )
    if not metadata:
        notes.append("The file has no metadata: base model and training are not known.")
    return notes
