"""Manifest of an adapter, `adapter.json`: identity and origin."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from sdlora.core.config_base import FrozenConfig, first_problem
from sdlora.core.errors import WeightsError
from sdlora.core.files import json_digest
from sdlora.core.foreign_json import parse_json
from sdlora.core.refs import ADAPTER_WEIGHTS, RESTORE_ADAPTER
from sdlora.lora.config import ResolvedLora
from sdlora.models.files.digests import DigestCache

MANIFEST_FILE = "adapter.json"
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Pattern of an adapter's name and of its file's."""
_MAX_BYTES = 4 * 2**20
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


_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class AdapterManifest(FrozenConfig):
    """Identity and origin of an adapter, without names of folders or persons."""

    format_version: int = 1
    name: str
    digest: _Digest = Field(description="SHA-256 of the diffusers file")
    kohya_file: str
    kohya_digest: _Digest = Field(description="SHA-256 of the kohya file")
    base_digest: _Digest
    snapshot_digest: str
    run_digest: str
    lora: ResolvedLora
    training: dict[str, Any] = Field(description="the training settings, as they were resolved")
    libraries: dict[str, str]
    own_digest: str = Field("", description="SHA-256 of all other entries as JSON; set when the file is written")

    def to_json(self) -> bytes:
        """Encode the manifest with the digest of its own entries."""
        entries = self.model_dump(mode="json", exclude={"own_digest"})
        return f"{json.dumps(entries | {'own_digest': json_digest(entries)}, indent=2)}\n".encode()

    @field_validator("kohya_file")
    @classmethod
    def _kohya_file_is_in_the_folder(cls, name: str) -> str:
        if not FILE_NAME.fullmatch(name) or not name.endswith(".safetensors") or name == ADAPTER_WEIGHTS:
            raise ValueError("is no name of another .safetensors file in the adapter's folder")
        return name


def read_manifest(folder: Path) -> AdapterManifest:
    """Read `adapter.json`.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    path = folder / MANIFEST_FILE
    try:
        with path.open("rb") as file:
            return parse_manifest(file.read(_MAX_BYTES + 1))
    except FileNotFoundError as error:
        raise WeightsError(f"{path} is missing: {folder} is not an adapter written by sdlora.") from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is damaged ({first_problem(error)}). {RESTORE_ADAPTER}") from error


def check_digests(folder: Path) -> AdapterManifest:
    """Check that an adapter's files are those that `adapter.json` names; without heavy imports.

    Returns:
        The adapter's manifest.
    Raises:
        WeightsError: a file is missing, damaged or changed.
    """
    manifest = read_manifest(folder)
    digests = DigestCache()
    for name, digest in ((ADAPTER_WEIGHTS, manifest.digest), (manifest.kohya_file, manifest.kohya_digest)):
        path = folder / name
        if not path.is_file():
            raise WeightsError(f"{path} is missing. {RESTORE_ADAPTER}")
        if digests.sha256(path) != digest:
            raise WeightsError(f"{path} is damaged: its SHA-256 is not {digest[:12]}. {RESTORE_ADAPTER}")
    return manifest


def parse_manifest(content: bytes) -> AdapterManifest:
    """Parse `adapter.json`, and compare its entries with the digest of its own.

    Raises:
        ValueError: damaged.
    """
    entries = parse_json(content, _MAX_BYTES)
    manifest = AdapterManifest.model_validate(entries)
    # Over the entries of the file, so that a later version with further entries still reads it.
    others = {name: value for name, value in entries.items() if name != "own_digest"}
    if manifest.own_digest and json_digest(others) != manifest.own_digest:
        raise ValueError("own_digest is not the digest of the other entries")
    return manifest


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that determine an adapter's bytes."""
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = version(library)
        except ImportError:  # PackageNotFoundError: sdlora run from a checkout that is not installed
            versions[library] = "unknown"
    return versions
