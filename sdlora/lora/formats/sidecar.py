"""Metadata from the files next to an adapter: `adapter.json`, and the model card of diffusers' training scripts.

diffusers' format has no field for words and steps, so the adapter file itself lacks them.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from sdlora.core.errors import WeightsError
from sdlora.core.refs import ADAPTER_WEIGHTS
from sdlora.core.tensor_header import read_header
from sdlora.lora.manifest import MANIFEST_FILE, AdapterManifest, read_manifest

_MODEL_CARD = "README.md"
_MAX_CHARACTERS = 2**16  # PyYAML takes a second for as many


def sidecar_metadata(path: Path) -> dict[str, str]:
    """Read metadata from the files next to an adapter, by the names of kohya's metadata; {} if there is none.

    Args:
        path: a `.safetensors` file.

    Raises:
        WeightsError: `adapter.json` is damaged.
    """
    if describes(path):
        return _manifest_metadata(path.parent, read_manifest(path.parent))
    return _card_metadata(path.with_name(_MODEL_CARD))


def describes(path: Path) -> bool:
    """Return True if the file is one of the two that the `adapter.json` in its folder describes.

    Raises:
        WeightsError: `adapter.json` is damaged.
    """
    if not path.with_name(MANIFEST_FILE).is_file():
        return False
    return path.name in (ADAPTER_WEIGHTS, read_manifest(path.parent).kohya_file)


def _manifest_metadata(folder: Path, manifest: AdapterManifest) -> dict[str, str]:
    kohya_metadata: dict[str, str] = {}
    with suppress(WeightsError):  # the kohya file was moved; adapter.json has the other entries
        kohya_metadata = read_header(folder / manifest.kohya_file).metadata
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
        with path.open(encoding="utf-8") as file:
            text = file.read(_MAX_CHARACTERS)
        # BaseLoader has only strings, lists and mappings: no merge keys, which can double in number at each level.
        front = text.split("---", 2)[1] if text.startswith("---") else ""
        front_matter = yaml.load(front, yaml.BaseLoader)  # noqa: S506  # it makes strings, lists and mappings only
    except (OSError, ValueError, IndexError, RecursionError, yaml.YAMLError):
        return {}
    if not isinstance(front_matter, dict) or not _is_lora_card(front_matter):
        return {}
    names = {"instance_prompt": "modelspec.trigger_phrase", "base_model": "ss_sd_model_name"}
    return {key: front_matter[name] for name, key in names.items() if isinstance(front_matter.get(name), str)}


def _is_lora_card(front_matter: dict[str, Any]) -> bool:
    tags = front_matter.get("tags")
    return any(isinstance(tag, str) and "lora" in tag.lower() for tag in (tags if isinstance(tags, list) else [tags]))
