"""Memory of settings that were found trainable, so that a run without news imports no model library.

The check builds the layers of the denoiser, which takes PyTorch, diffusers, transformers and peft. Their imports take
longer than all else in a run that trains nothing. A training checks its settings again at its start, so an entry that
is out of date is told before the first step.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sdlora.core.errors import StorageError
from sdlora.core.files import make_private_folder, replace_file
from sdlora.core.refs import BaseModelRef
from sdlora.lora.config import ResolvedLora
from sdlora.training.config import ResolvedTraining

_PACKAGES = ("sdlora", "torch", "diffusers", "transformers", "peft", "bitsandbytes", "prodigyopt", "schedulefree")
"""Packages whose versions can change the answer."""
_MAX_ENTRIES = 500


def check_settings_once(base: BaseModelRef, lora: ResolvedLora | None, config: ResolvedTraining, home: Path) -> None:
    """Check settings as `check_settings` does, unless they passed in this state folder before.

    Args:
        base: the base model; no weights are read.
        lora: settings of the adapter; None if all weights are trained.
        config: resolved training settings.
        home: the state folder, whose cache has the digests of settings that passed.

    Raises:
        SdloraError: settings that cannot be trained, see `check_settings`.
    """
    path = home / "cache" / "checked-settings.json"
    digest = _digest(base, lora, config)
    if digest in _passed(path):
        return
    from sdlora.training.suitability import check_settings

    check_settings(base, lora, config, config.num_processes)
    _record(path, digest)


def _digest(base: BaseModelRef, lora: ResolvedLora | None, config: ResolvedTraining) -> str:
    inputs = {
        "base": base.digest,
        "quantize": base.quantize,
        "lora": lora.model_dump(mode="json") if lora else None,
        "training": config.model_dump(mode="json"),
        "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "packages": {name: _version(name) for name in _PACKAGES},
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # an optional one, or sdlora in a checkout
        return None


def _passed(path: Path) -> dict[str, bool]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):  # missing or damaged: the check is made again
        return {}


def _record(path: Path, digest: str) -> None:
    newest = list({**_passed(path), digest: True}.items())[-_MAX_ENTRIES:]
    with suppress(OSError, StorageError):  # a full disk: the next run checks again
        make_private_folder(path.parent)
        replace_file(path, json.dumps(dict(newest)).encode())
