"""Inspection of adapter files of sdlora, kohya, LyCORIS, diffusers and peft."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open

from sdlora.core.errors import WeightsError
from sdlora.core.foreign_json import parse_json
from sdlora.core.quoting import quoted
from sdlora.core.refs import ADAPTER_WEIGHTS, BaseModelRef
from sdlora.core.tensor_header import MAX_HEADER_BYTES, Shape, TensorHeader, read_header
from sdlora.lora.formats.recognise import family_of_file, method_of, normalise_key, part_of
from sdlora.lora.formats.sidecar import describes, sidecar_metadata
from sdlora.lora.manifest import read_manifest
from sdlora.models.adapter_check import not_finite
from sdlora.models.adapter_file import METADATA_KEY
from sdlora.models.adapter_layers import Shapes, UpdateShape, update_shape
from sdlora.models.files.digests import folder_digest
from sdlora.models.files.folder_check import PICKLE_SUFFIXES, pickle_message
from sdlora.models.files.sources import EMBEDDED

_MAX_WORDS = 8
_MAX_CHARACTERS = 300  # of one word, caption or entry of the metadata
# torch's names of safetensors' precisions.
_PRECISIONS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_NUMBERS = (*_PRECISIONS, "F8_E4M3", "F8_E5M2", "I64", "I32", "I16", "I8", "U8")


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
        problems: reasons why the file is no usable adapter.
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
    problems: tuple[str, ...] = field(default=())


def inspect_adapter(path: Path) -> AdapterFacts:
    """Inspect an adapter file, or the file in an adapter folder, without loading it into a model.

    Raises:
        WeightsError: the file is missing, damaged, pickled, or no adapter.
    """
    file_path = _file_of(path)
    header = read_header(file_path)
    metadata, shapes = header.metadata, header.shapes
    described = {**sidecar_metadata(file_path), **metadata}
    layers = _group_by_layer(shapes)
    if not layers:
        raise WeightsError(
            f"{file_path} holds no adapter: none of its {len(shapes)} tensors is a LoRA's, LoHa's or LoKr's "
            f"(first: {quoted(min(shapes)) if shapes else 'none'}). A whole model is opened as base_model.source."
        )
    updates, problems = _updates(layers)
    alphas = _alphas(file_path, header, layers)
    finite = {layer: alpha for layer, alpha in alphas.items() if math.isfinite(alpha)}
    problems += _wrong_numbers(file_path, len(shapes), alphas)
    hashes, disagreements = _hashes(file_path, metadata)
    methods = Counter(map(method_of, layers.values()))
    kohya = any(key.endswith((".lora_down.weight", ".alpha", ".dora_scale")) for key in shapes)
    return AdapterFacts(
        file=file_path.name,
        size_bytes=file_path.stat().st_size,
        layout="kohya / LyCORIS" if kohya or any(key.startswith("lora_") for key in shapes) else "diffusers / peft",
        family=family_of_file(layers, metadata),
        method=", ".join(methods),
        ranks=dict(Counter(update.rank for update in updates.values())),
        scales=dict(_scales(updates, finite, _peft_settings(metadata))),
        alphas=tuple(sorted(set(finite.values()))),
        layers=dict(Counter(part_of(layer) for layer in layers)),
        precisions=tuple(sorted({_PRECISIONS.get(dtype, dtype.lower()) for dtype in header.dtypes.values()})),
        parameters=sum(math.prod(shape) for key, shape in shapes.items() if not key.endswith(".alpha")),
        words=_words(described),
        origin=_origin(described),
        hashes=hashes,
        notes=(*disagreements, *_notes(set(alphas.values()), methods, metadata, kohya)),
        problems=tuple(problems or _problems_of_folder(file_path)),
    )


def _file_of(path: Path) -> Path:
    try:
        path.stat()
    except FileNotFoundError:
        pass  # its reader has the message
    except OSError as error:
        raise WeightsError(f"{quoted(str(path))} cannot be read: {error.strerror}. Correct the path.") from error
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


def _group_by_layer(shapes: Mapping[str, Shape]) -> dict[str, dict[str, Shape]]:
    layers: dict[str, dict[str, Shape]] = {}
    for key, shape in shapes.items():
        layer_and_suffix = normalise_key(key)
        if layer_and_suffix:
            layer, suffix = layer_and_suffix
            layers.setdefault(layer, {})[suffix] = shape
    # A layer without factors changes nothing.
    return {
        layer: layer_shapes for layer, layer_shapes in layers.items() if layer_shapes.keys() - {"alpha", "dora_scale"}
    }


def _updates(layers: Mapping[str, Shapes]) -> tuple[dict[str, UpdateShape], list[str]]:
    """Return the updates by layer, and the problem of the layers whose tensors form no update."""
    updates: dict[str, UpdateShape] = {}
    reasons: dict[str, str] = {}
    for layer, shapes in layers.items():
        try:
            updates[layer] = update_shape(shapes)
        except ValueError as error:
            reasons[layer] = str(error)
    if not reasons:
        return updates, []
    layer, reason = next(iter(reasons.items()))
    return updates, [f"Damaged are {len(reasons)} of {len(layers)} layers, such as {quoted(layer)}: {reason}."]


def _wrong_numbers(path: Path, count: int, alphas: Mapping[str, float]) -> Iterator[str]:
    names = list(not_finite(path))
    if names:
        yield (
            f"{len(names)} of {count} tensors have numbers that are NaN or infinite, such as {quoted(names[0])}: "
            "every image would be black or noise."
        )
    wrong = [layer for layer, alpha in alphas.items() if not 0 < alpha < math.inf]
    if wrong:
        yield f"{len(wrong)} layers have an alpha that is no positive number, such as {quoted(wrong[0])}."


def _problems_of_folder(path: Path) -> Iterator[str]:
    """Compare a file of an adapter's folder with `adapter.json` and, if that is the embedded one, with its base."""
    if not describes(path):
        return
    from sdlora.lora.check import check_files  # imports diffusers and peft, which a file of strangers does not need

    try:
        check_files(path.parent, _embedded_base(read_manifest(path.parent).base_digest))
    except WeightsError as error:
        yield str(error)


def _embedded_base(digest: str) -> BaseModelRef | None:
    """Return the embedded base model if it has this digest; the place of another base model is not known."""
    if not EMBEDDED.is_dir() or folder_digest(EMBEDDED) != digest:
        return None
    return BaseModelRef(name="embedded", folder=EMBEDDED, digest=digest)


def _peft_settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        settings = parse_json(metadata.get(METADATA_KEY, "{}"), MAX_HEADER_BYTES)
    except ValueError:
        return {}
    return settings if isinstance(settings, dict) else {}


def _alphas(path: Path, header: TensorHeader, layers: Mapping[str, Shapes]) -> dict[str, float]:
    """Return the alphas by layer, from the layers' tensors, else from peft's settings; NaN for what is no number."""
    settings = _peft_settings(header.metadata)
    alphas: dict[str, float] = {}
    for layer in layers:
        alpha = _setting(settings, layer.split(".", 1)[0], "lora_alpha", "alpha")
        if alpha is not None:
            alphas[layer] = _number(alpha)
    with safe_open(path, framework="pt") as file:
        for key, shape in header.shapes.items():
            layer, suffix = normalise_key(key) or ("", "")
            if suffix == "alpha" and layer in layers:
                readable = math.prod(shape) == 1 and header.dtypes[key] in _NUMBERS
                alphas[layer] = _number(file.get_tensor(key).item()) if readable else math.nan
    return alphas


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return math.inf


def _scales(
    updates: Mapping[str, UpdateShape], alphas: Mapping[str, float], settings: Mapping[str, Any]
) -> Counter[float]:
    """Count the effective scales; without an alpha, tools use a scale of 1."""
    scales: Counter[float] = Counter()
    for layer, update in updates.items():
        rslora = _setting(settings, layer.split(".", 1)[0], "use_rslora") is True
        divisor = math.sqrt(update.rank) if rslora else update.rank
        scales[round(alphas[layer] / divisor, 6) if layer in alphas and divisor else 1.0] += 1
    return scales


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
        for tags in parse_json(metadata.get("ss_tag_frequency", "{}"), MAX_HEADER_BYTES).values():
            counts.update({str(tag).strip(): int(count) for tag, count in tags.items()})
        words += [tag for tag, _ in counts.most_common(_MAX_WORDS)]
    except (ValueError, AttributeError, TypeError, OverflowError):
        pass  # metadata of other tools may have any form; only the words are lost
    return tuple(map(_shortened, words))


def _shortened(text: str) -> str:
    # JSON can name halves of characters, which no terminal and no file takes.
    return text[:_MAX_CHARACTERS].encode("utf-8", "replace").decode()


_ORIGIN_KEYS = {
    "title": ("modelspec.title", "ss_output_name"),
    "base model": ("ss_sd_model_name", "sdlora.base_name"),
    "base digest": ("sdlora.base_digest", "ss_new_sd_model_hash", "ss_sd_model_hash"),
    "snapshot": ("sdlora.snapshot_digest",),
    "run": ("sdlora.run_digest",),
    "style": ("sdlora.style",),
    "version": ("sdlora.version",),
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
    return {label: _shortened(value) for label, value in values.items() if value}


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
            f"Its tensors were changed: sshs_model_hash {quoted(claimed[:12])} is given, {data_digest[:12]} is found."
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
