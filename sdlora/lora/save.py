"""Saving of an adapter in both formats, with both files read back and compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from sdlora.core.errors import StorageError, WeightsError
from sdlora.core.files import file_sha256, written_aside
from sdlora.core.refs import ADAPTER_WEIGHTS, AdapterRef, BaseModelRef
from sdlora.lora.config import ResolvedLora
from sdlora.lora.formats.compatibility import NOTE_FILE, note
from sdlora.lora.formats.diffusers import read_diffusers_file, write_diffusers_file
from sdlora.lora.formats.joining import kohya_updates
from sdlora.lora.formats.kohya import read_kohya_file, write_kohya_file
from sdlora.lora.layers import base_weights, collect_updates, require_equal
from sdlora.lora.manifest import FILE_NAME, MANIFEST_FILE, AdapterManifest, AdapterOrigin, library_versions
from sdlora.lora.updates import LayerUpdate
from sdlora.models.adapter_file import OUTER_NAME
from sdlora.models.families import family_of
from sdlora.models.families.base import Family

_MAX_PHRASES = 50  # the most frequent phrases of the captions are kept in the file


def save_adapter(
    folder: Path,
    denoiser: Any,
    config: ResolvedLora,
    base: BaseModelRef,
    origin: AdapterOrigin,
    text_encoders: Mapping[str, Any] | None = None,
) -> AdapterRef:
    """Save the adapters that are attached to `denoiser` and to text encoders; see `save_updates`.

    Args:
        folder: destination; an adapter in it is replaced.
        denoiser: the network with the trained adapter attached.
        config: the adapter's settings.
        base: the model that it was trained on.
        origin: the adapter's name and the record of its training.
        text_encoders: text encoders with an adapter, by folder name.

    Raises:
        WeightsError: `origin.name` is not a file name, the model has no adapter, or a file read back differs.
        StorageError: the disk is full or not writable.
    """
    updates, weights = _by_part(family_of(base.folder).layout.denoiser, denoiser)
    for part, encoder in (text_encoders or {}).items():
        text_updates, text_weights = _by_part(part, encoder)
        updates, weights = updates | text_updates, weights | text_weights
    return save_updates(folder, updates, weights, config, base, origin)


def save_updates(
    folder: Path,
    updates: Mapping[str, LayerUpdate],
    weights: Mapping[str, Tensor],
    config: ResolvedLora,
    base: BaseModelRef,
    origin: AdapterOrigin,
) -> AdapterRef:
    """Save updates as an adapter.

    The folder gets `pytorch_lora_weights.safetensors` (diffusers), `<origin.name>.safetensors` (kohya, ComfyUI),
    `adapter.json` and a note on which file is for which tool, atomically. Equal adapters give equal bytes: no time,
    path or machine name is written.

    Args:
        folder: destination; an adapter in it is replaced.
        updates: updates by part and layer, `unet.mid_block...to_q`; layers of text encoders have the outer name.
        weights: weights of the base by the same names; those of a DoRA need values, others only a shape.
        config: the adapter's settings.
        base: the model that the adapter changes.
        origin: the adapter's name and the record of its training.

    Raises:
        WeightsError: `origin.name` is not a file name, or a file read back differs.
        StorageError: the disk is full or not writable.
    """
    name = origin.name
    if not FILE_NAME.fullmatch(name) or f"{name}.safetensors" == ADAPTER_WEIGHTS:
        raise WeightsError(f"name: {name!r} cannot name the adapter's file; use letters, digits, '.', '-' and '_'.")
    family = family_of(base.folder)
    kohya_layers, kohya_weights = kohya_updates(updates, weights, family)
    metadata = _describe(family, name, origin.prediction_type, origin.resolution_px) | {
        "sdlora.base_digest": base.digest,
        "sdlora.snapshot_digest": origin.snapshot_digest,
        "sdlora.run_digest": origin.run_digest,
        **({"ss_tag_frequency": _tag_frequency(name, origin.captions)} if origin.captions else {}),
        **origin.details,
    }
    try:
        with written_aside(folder) as partial:
            partial.mkdir()
            diffusers_path, kohya_path = partial / ADAPTER_WEIGHTS, partial / f"{name}.safetensors"
            digest = write_diffusers_file(diffusers_path, updates, config)
            kohya_digest = write_kohya_file(kohya_path, kohya_layers, config, metadata, family.kohya_module)
            require_equal(read_diffusers_file(diffusers_path), updates, weights, ADAPTER_WEIGHTS)
            require_equal(read_kohya_file(kohya_path), kohya_layers, kohya_weights, kohya_path.name)
            if (file_sha256(diffusers_path), file_sha256(kohya_path)) != (digest, kohya_digest):
                raise WeightsError(f"{partial} does not hold the bytes that were written. Check the disk.")
            manifest = AdapterManifest(
                name=name,
                digest=digest,
                kohya_file=kohya_path.name,
                kohya_digest=kohya_digest,
                base_digest=base.digest,
                snapshot_digest=origin.snapshot_digest,
                run_digest=origin.run_digest,
                lora=config,
                training=dict(origin.training),
                libraries=library_versions(),
            )
            (partial / MANIFEST_FILE).write_bytes(manifest.to_json())
            (partial / NOTE_FILE).write_text(note(kohya_path.name))
    except OSError as error:
        raise StorageError(
            f"Cannot write the adapter to {folder}: {error}. Free some space and run again; training is not lost."
        ) from error
    return AdapterRef(
        folder=folder,
        digest=digest,
        base_digest=base.digest,
        snapshot_digest=origin.snapshot_digest,
        run_digest=origin.run_digest,
    )


def _by_part(part: str, network: Any) -> tuple[dict[str, LayerUpdate], dict[str, Tensor]]:
    """Collect the updates and the base's weights by the names of the diffusers file, `unet.mid_block...`."""

    def full_name(layer: str) -> str:
        # The name of transformers 4: newer readers remove the outer name, older readers need it.
        outer = OUTER_NAME if part.startswith("text_encoder") and not layer.startswith(OUTER_NAME) else ""
        return f"{part}.{outer}{layer}"

    updates = {full_name(layer): update for layer, update in collect_updates(network).items()}
    return updates, {full_name(layer): weight for layer, weight in base_weights(network).items()}


def _tag_frequency(name: str, captions: Sequence[str]) -> str:
    """Count the comma-separated phrases of captions as sd-scripts' `ss_tag_frequency`, keyed by the adapter's name."""
    phrases = Counter(phrase.strip() for caption in captions for phrase in caption.split(",") if phrase.strip())
    frequent = sorted(phrases.items(), key=lambda item: (-item[1], item[0]))[:_MAX_PHRASES]
    return json.dumps({name: dict(frequent)})


def _describe(family: Family, name: str, prediction: str, resolution_px: int) -> dict[str, str]:
    """Build the metadata by which tools choose a loader, and which they display."""
    velocity = prediction == "v_prediction"
    return {
        "ss_output_name": name,
        "ss_resolution": f"({resolution_px}, {resolution_px})",
        "ss_v_parameterization": str(velocity),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": name,
        "modelspec.resolution": f"{resolution_px}x{resolution_px}",
        # modelspec has no word for the velocity of a flow.
        **({} if prediction == "flow" else {"modelspec.prediction_type": "v" if velocity else prediction}),
        **family.kohya_metadata(prediction),
    }
