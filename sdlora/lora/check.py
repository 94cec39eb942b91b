"""Consistency of an adapter's folder: both files, `adapter.json`, and the layers that the base has.

A digest shows that a file is the one that was written. These checks show that the file is one that sdlora writes, so
that a folder with wrong tensors and matching digests is found, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isclose, prod
from pathlib import Path

import torch

from sdlora.core.errors import WeightsError
from sdlora.core.quoting import escaped, quoted
from sdlora.core.refs import ADAPTER_WEIGHTS, AdapterRef, BaseModelRef
from sdlora.core.tensor_header import read_header
from sdlora.lora.config import ResolvedLora
from sdlora.lora.formats.diffusers import read_updates
from sdlora.lora.formats.joining import kohya_updates
from sdlora.lora.formats.kohya import read_kohya_file
from sdlora.lora.formats.reading import group_by_layer
from sdlora.lora.layers import differing_layer
from sdlora.lora.manifest import MANIFEST_FILE, AdapterManifest, check_digests, read_manifest
from sdlora.lora.targets import matching_layers, patterns_of
from sdlora.lora.text import text_layers
from sdlora.models.adapter_check import check_against_base, layer_shapes, require_finite
from sdlora.models.adapter_file import OUTER_NAME, AdapterPart, read_adapter_file
from sdlora.models.adapter_layers import update_shape
from sdlora.models.families import family_of
from sdlora.models.stable_diffusion import check_adapter

_TOLERANCE = 1e-5  # of alpha, which fp64 rounds
# The factors B of joined layers have zeros in the kohya file; the other tensors are as many numbers in both files.
_JOINED_SUFFIXES = (".lora_up.weight", ".lora_B.weight", ".alpha")


def check_files(folder: Path, base: BaseModelRef | None = None) -> AdapterManifest:
    """Check an adapter's folder: digests, settings, layers, shapes and numbers of both files.

    Args:
        folder: folder of the adapter.
        base: base model of the adapter; without it, layers are compared with the files' settings only.

    Returns:
        The adapter's manifest.
    Raises:
        WeightsError: a file is missing, damaged or changed, or does not fit `adapter.json`, the other file or the base.
    """
    manifest = check_digests(folder)
    weights, kohya = folder / ADAPTER_WEIGHTS, folder / manifest.kohya_file
    if base is None:
        parts = read_adapter_file(weights)
        require_finite(weights)
    else:
        parts = check_against_base(weights, base.folder)
    _compare_settings(weights, parts, manifest.lora, base)
    _compare_kohya(weights, kohya, parts, base)
    require_finite(kohya)
    return manifest


def check_weights(adapter: AdapterRef, base: BaseModelRef) -> ResolvedLora:
    """Check the file that sdlora itself loads: digest, base, layers, numbers, and the settings in `adapter.json`.

    Returns:
        The adapter's settings.
    Raises:
        WeightsError: the adapter belongs to another base model, or a file is missing, changed or wrong.
    """
    parts = check_adapter(adapter, base)
    config = read_manifest(adapter.folder).lora
    _compare_settings(adapter.folder / ADAPTER_WEIGHTS, parts, config, base)
    return config


def check_files_of(adapter: AdapterRef, base: BaseModelRef | None = None) -> AdapterManifest:
    """Check like `check_files` that the folder holds this adapter.

    Raises:
        WeightsError: see `check_files`, or the folder holds another adapter, or one of another base model.
    """
    manifest = check_files(adapter.folder, base)
    if manifest.digest != adapter.digest:
        raise WeightsError(f"{adapter.folder} holds the adapter {manifest.digest[:12]}, not {adapter.digest[:12]}.")
    return manifest


def _compare_settings(
    path: Path, parts: Mapping[str, AdapterPart], config: ResolvedLora, base: BaseModelRef | None
) -> None:
    """Compare rank, alpha, method and layers of an adapter's diffusers file with the settings in `adapter.json`."""
    saved, text = config.as_saved(), config.for_text()
    for name, part in parts.items():
        expected = text if name.startswith("text_encoder") else saved
        if expected is None:
            raise WeightsError(f"{path} changes {quoted(name)}, but {MANIFEST_FILE} has no lora.text_encoder_rank.")
        alpha = part.settings.scale_alpha or float(part.settings.r)
        found: dict[str, tuple[object, object]] = {
            "rank": (part.settings.r, expected.rank),
            "alpha": (expected.alpha if isclose(alpha, expected.alpha, rel_tol=_TOLERANCE) else alpha, expected.alpha),
            "method": (min(part.methods), expected.method),
        }
        for setting, (in_file, in_manifest) in found.items():
            if in_file != in_manifest:
                raise WeightsError(
                    f"{path} does not fit {MANIFEST_FILE}: lora.{setting} of {quoted(name)} is {in_file} in the file "
                    f"and {in_manifest} in {MANIFEST_FILE}. Restore the folder or train the adapter again."
                )
    if text is not None and not any(name.startswith("text_encoder") for name in parts):
        raise WeightsError(f"{path} changes no text encoder, but {MANIFEST_FILE} has lora.text_encoder_rank.")
    if base is not None:
        _compare_layers(path, parts, config, base)


def _compare_layers(path: Path, parts: Mapping[str, AdapterPart], config: ResolvedLora, base: BaseModelRef) -> None:
    """Compare the adapted layers with those that the settings choose in the base, and the rank with their widths."""
    family = family_of(base.folder)
    denoiser = family.layout.denoiser
    shapes = layer_shapes(base.folder, denoiser)
    expected = {denoiser: set(matching_layers(shapes, patterns_of(family.layout.denoiser_class, config)))}
    if config.text_encoder_rank is not None:
        for text in family.text_parts:
            count = family.settings(text.folder)["num_hidden_layers"]
            expected[text.folder] = set(text_layers(count, text))
    found = {name: set(part.layers) for name, part in parts.items()}
    for name in sorted(expected.keys() | found.keys()):
        wanted, present = expected.get(name, set()), found.get(name, set())
        if wanted != present:
            layer = min(wanted ^ present)
            raise WeightsError(
                f"{path} {'lacks' if layer in wanted else 'has unexpected'} tensors: {MANIFEST_FILE} and the base "
                f"model ask for {len(wanted)} layers of {quoted(name)}, it has {len(present)}. The first difference is "
                f"{quoted(layer)}. Restore the folder or train the adapter again."
            )
    narrowest = min(min(shape[0], prod(shape[1:])) for layer, shape in shapes.items() if layer in expected[denoiser])
    if config.rank > narrowest:  # the tensors of a LoKr do not show its rank
        raise WeightsError(
            f"{path.with_name(MANIFEST_FILE)}: lora.rank is {config.rank}, above the width of an adapted layer of the "
            f"base ({narrowest}). Restore the folder or train the adapter again."
        )


def _compare_kohya(path: Path, kohya: Path, parts: Mapping[str, AdapterPart], base: BaseModelRef | None) -> None:
    """Compare the two files. Without a base the names of layers cannot be compared, only the numbers of tensors."""
    try:
        problem = _difference_in_counts(path, kohya) if base is None else _difference(path, kohya, parts, base)
    except (ValueError, RuntimeError) as error:  # shapes that do not fit each other
        problem = escaped(error)
    if problem:
        raise WeightsError(
            f"{path.name} and {kohya.name} in {path.parent} are different adapters: {problem}. Restore the folder or "
            "train the adapter again."
        )


def _difference_in_counts(path: Path, kohya: Path) -> str | None:
    counts = [
        sum(prod(shape) for name, shape in read_header(file).shapes.items() if not name.endswith(_JOINED_SUFFIXES))
        for file in (path, kohya)
    ]
    return None if counts[0] == counts[1] else f"they hold {counts[0]:,} and {counts[1]:,} numbers"


def _difference(path: Path, kohya: Path, parts: Mapping[str, AdapterPart], base: BaseModelRef) -> str | None:
    updates = read_updates(path, parts)
    # Only a DoRA depends on the weight. Any weight shows whether two updates are equal.
    weights = {
        f"{name}.{layer}": torch.ones(()).expand(shape)
        for name in parts
        for layer, shape in layer_shapes(base.folder, name).items()
    }
    named = {name: weights[_inner_name(name)] for name in updates}
    expected, expected_weights = kohya_updates(updates, named, family_of(base.folder))
    shapes = read_header(kohya).shapes
    layers = group_by_layer(shapes)
    if sum(map(len, layers.values())) != len(shapes):
        return f"{kohya.name} has tensors of no known method"
    for layer in sorted(layers.keys() & expected.keys()):  # before any product takes memory
        update = update_shape({suffix: shapes[key] for suffix, key in layers[layer].items()})
        weight = expected_weights[layer]
        if (update.rows, update.columns) != (weight.shape[0], weight.shape[1:].numel()):
            return f"the shapes of {quoted(layer)} differ"
    differing = differing_layer(read_kohya_file(kohya), expected, expected_weights)
    return None if differing is None else f"their updates of {quoted(differing)} differ"


def _inner_name(name: str) -> str:
    """Leave out the outer name: `text_encoder.text_model.encoder...` -> `text_encoder.encoder...`."""
    part, _, layer = name.partition(".")
    return f"{part}.{layer.removeprefix(OUTER_NAME)}"
