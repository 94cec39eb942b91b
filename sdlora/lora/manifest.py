"""Manifest of an adapter, `adapter.json`: identity and origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from sdlora.core.config_base import FrozenConfig
from sdlora.core.errors import WeightsError
from sdlora.lora.config import ResolvedLora

MANIFEST_FILE = "adapter.json"
_LIBRARIES = ("sdlora", "torch", "diffusers", "peft", "transformers", "safetensors")


@dataclass(frozen=True)
class AdapterOrigin:
    """Origin of an adapter, which its files record.

    Attributes:
        name: name of the kohya file, without suffix, and the title that tools show.
        snapshot_digest: the images it was trained on.
        run_digest: all inputs of the training run.
        prediction_type: what the base predicts, such as "epsilon" or "v_prediction".
        resolution_px: side of the training images.
        training: the resolved training settings, for `adapter.json`.
        captions: of the training images; the most frequent phrases are what tools offer as words for prompts.
        details: further `ss_*` or `modelspec.*` metadata of the kohya file.
    """

    name: str
    snapshot_digest: str
    run_digest: str
    prediction_type: str
    resolution_px: int
    training: Mapping[str, Any] = field(default_factory=dict)
    captions: Sequence[str] = ()
    details: Mapping[str, str] = field(default_factory=dict)


class AdapterManifest(FrozenConfig):
    """Identity and origin of an adapter, without names of folders or persons."""

    format_version: int = 1
    name: str
    digest: str = Field(description="SHA-256 of the diffusers file")
    kohya_file: str
    kohya_digest: str = Field(description="SHA-256 of the kohya file")
    base_digest: str
    snapshot_digest: str
    run_digest: str
    lora: ResolvedLora
    training: dict[str, Any] = Field(description="the training settings, as they were resolved")
    libraries: dict[str, str]


def read_manifest(folder: Path) -> AdapterManifest:
    """Read `adapter.json`.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    path = folder / MANIFEST_FILE
    try:
        return AdapterManifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise WeightsError(f"{path} is missing: {folder} is not an adapter written by sdlora.") from error
    except (OSError, ValidationError) as error:
        raise WeightsError(f"{path} is damaged. Restore the file or train the adapter again.") from error


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that determine an adapter's bytes."""
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = version(library)
        except ImportError:  # PackageNotFoundError: sdlora run from a checkout that is not installed
            versions[library] = "unknown"
    return versions
