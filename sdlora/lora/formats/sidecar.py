"""Metadata from the files next to an adapter: `adapter.json`, and the model card of diffusers' training scripts.

diffusers' format has no field for words and steps, so the adapter file itself lacks them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from sdlora.core.refs import ADAPTER_WEIGHTS
from sdlora.lora.manifest import MANIFEST_FILE, AdapterManifest, read_manifest

_MODEL_CARD = "README.md"


def sidecar_metadata(path: Path) -> dict[str, str]:
    """Read metadata from the files next to an adapter, by the names of kohya's metadata; {} if there is none.

    Args:
        path: a `.safetensors` file.

    Raises:
        WeightsError: `adapter.json` is damaged.
    """
    folder = path.parent
    if (folder / MANIFEST_FILE).is_file():
        manifest = read_manifest(folder)
        if path.name in (ADAPTER_WEIGHTS, manifest.kohya_file):  # the manifest describes only these two files
            return _manifest_metadata(folder, manifest)
    return _card_metadata(folder / _MODEL_CARD)


def _manifest_metadata(folder: Path, manifest: AdapterManifest) -> dict[str, str]:
    kohya_metadata: dict[str, str] = {}
    try:
        with safe_open(folder / manifest.kohya_file, framework="pt") as file:
            kohya_metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError):
        pass  # the kohya file was moved; adapter.json has the other entries
    steps = manifest.training.get("steps")
    steps_metadata = {"ss_max_train_steps": str(steps)} if steps is not None else {}
    identity = {
        "modelspec.title": manifest.name,
        "sdlora.base_digest": manifest.base_digest,
        "sdlora.snapshot_digest": manifest.snapshot_digest,
        "sdlora.run_digest": manifest.run_digest,
    }
    training_metadata = {key: value for key, value in kohya_metadata.items() if key.startswith(("ss_", "modelspec."))}
    return {**steps_metadata, **training_metadata, **identity}


def _card_metadata(path: Path) -> dict[str, str]:
    """Read `instance_prompt` and `base_model` from the front matter of a LoRA's model card."""
    try:
        text = path.read_text(encoding="utf-8")
        front_matter = yaml.safe_load(text.split("---", 2)[1]) if text.startswith("---") else None
    except (OSError, ValueError, IndexError, yaml.YAMLError):
        return {}
    if not isinstance(front_matter, dict) or not _is_lora_card(front_matter):
        return {}
    names = {"instance_prompt": "modelspec.trigger_phrase", "base_model": "ss_sd_model_name"}
    return {key: front_matter[name] for name, key in names.items() if isinstance(front_matter.get(name), str)}


def _is_lora_card(front_matter: dict[str, Any]) -> bool:
    return "lora" in json.dumps(front_matter.get("tags", ""), default=str).lower()
