"""From a setting to a verified folder on this machine: embedded, folder, single file, hub."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from inspect import signature
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sdlora.artifacts import BaseModelRef
from sdlora.checkpoints import file_sha256
from sdlora.errors import StorageError, WeightsError
from sdlora.models.config import BaseModelConfig
from sdlora.models.digests import DigestCache, folder_digest
from sdlora.models.families.layouts import find_layout
from sdlora.models.folder_check import PICKLE_SUFFIXES, check_folder, check_safetensors, pickle_message

EMBEDDED = Path(__file__).parent.parent / "assets" / "base"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILES = ("*.json", "*.safetensors", "*/merges.txt")


def load_base_model(config: BaseModelConfig, home: Path) -> BaseModelRef:
    """Find the base model, check that it is whole, and name it by its digest.

    Nothing is downloaded unless `source` is a hub id. No weights are read into memory.

    Args:
        config: where from.
        home: the state folder; digests are remembered under `cache/`, converted and downloaded models under `bases/`.
    Raises:
        WeightsError: missing, damaged, pickled or unsupported; the message names the file and the remedy.
    """
    name, folder = _resolve(config, home)
    check_folder(folder)
    return BaseModelRef(name=name, folder=folder, digest=folder_digest(folder, DigestCache.of_home(home)))


def verify(ref: BaseModelRef, home: Path | None = None) -> None:
    """Check that the folder still holds what the reference names.

    Raises:
        WeightsError: a file is missing or has changed.
    """
    check_folder(ref.folder)
    found = folder_digest(ref.folder, DigestCache.of_home(home) if home else None)
    if found != ref.digest:
        raise WeightsError(
            f"The base model {ref.name} in {ref.folder} has digest {found[:12]}, expected {ref.digest[:12]}: "
            "its files changed. Restore them, or start again from the changed base model."
        )


def _resolve(config: BaseModelConfig, home: Path) -> tuple[str, Path]:
    source = config.source
    path = Path(source).expanduser()
    if config.layout and path.suffix != ".safetensors":
        raise WeightsError(f"base_model.layout is only used with a .safetensors checkpoint, not with {source!r}.")
    if source == "embedded":
        if not EMBEDDED.is_dir():
            raise WeightsError("The embedded base model is missing from this installation. Reinstall sdlora.")
        return "embedded", EMBEDDED
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise WeightsError(pickle_message(path))
    if path.is_dir():
        return path.resolve().name, path.resolve()
    if path.is_file() and path.suffix == ".safetensors":
        return path.stem, _convert_single_file(path, config.layout, home)
    if path.is_file():
        raise WeightsError(f"base_model.source: {path} is neither a folder nor a .safetensors file.")
    if _HUB_ID.fullmatch(source) and config.revision:
        return source, _download(source, config.revision, home)
    hint = (
        " If it is a hub id, set base_model.revision to the commit to use (40 hexadecimal digits)."
        if _HUB_ID.fullmatch(source)
        else ""
    )
    raise WeightsError(
        f"base_model.source: {source!r} is not there. Give 'embedded', a diffusers folder, "
        f"a .safetensors file, or a hub id with a revision.{hint}"
    )


def _convert_single_file(path: Path, layout: str | None, home: Path) -> Path:
    """Turn a checkpoint in the original Stable Diffusion format into `bases/<digest>/`, once per file and layout.

    The checkpoint holds weights but neither settings nor a tokenizer. diffusers would fetch those from the hub;
    here they come from a local folder, so that no network is touched.
    """
    if layout is None:
        raise WeightsError(
            f"base_model.source: {path.name} holds weights only. Set base_model.layout to a diffusers folder of the "
            "same architecture (model_index.json, the config.json of each part, tokenizer, scheduler)."
        )
    check_safetensors(path)
    layout_folder = Path(layout).expanduser()
    find_layout(layout_folder)
    settings = [file_sha256(file) for file in sorted(layout_folder.rglob("*.json"))]
    key = hashlib.sha256("".join([file_sha256(path), *settings]).encode()).hexdigest()
    folder = (home / "bases" / key[:16]).resolve()
    if (folder / "model_index.json").is_file():
        return folder
    pipeline = _read_single_file(path, layout_folder)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        pipeline.save_pretrained(partial, safe_serialization=True)
        check_folder(partial)
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"Cannot write the converted base model to {folder.parent}: {error}.") from error
    except NotImplementedError as error:  # a tensor that the file did not fill is still without storage
        raise WeightsError(_layout_message(path, layout_folder, "tensors are missing from the file")) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _read_single_file(path: Path, layout: Path) -> Any:
    from sdlora.models.families import family_of
    from sdlora.models.quiet import no_progress_bars

    kind = family_of(layout).pipeline_class
    options = {"safety_checker": None} if "safety_checker" in signature(kind).parameters else {}
    try:
        with no_progress_bars():
            return kind.from_single_file(str(path), config=str(layout), local_files_only=True, **options)
    # diffusers answers a wrong layout with whatever its conversion trips over (KeyError, ValueError, OSError, ...).
    except Exception as error:
        raise WeightsError(_layout_message(path, layout, f"{type(error).__name__}: {error}")) from error


def _layout_message(path: Path, layout: Path, found: str) -> str:
    return (
        f"base_model.source: {path} cannot be read with base_model.layout {layout} ({found}). "
        "Give the layout of the same architecture."
    )


def _download(repository: str, revision: str, home: Path) -> Path:
    from huggingface_hub import snapshot_download

    folder = home / "bases" / f"{repository.replace('/', '--')}-{revision[:12]}"
    complete = folder / ".complete"
    if not complete.is_file():
        try:
            snapshot_download(repository, revision=revision, local_dir=folder, allow_patterns=list(_HUB_FILES))
        # Offline, a wrong id and a wrong revision all arrive as different exceptions of httpx and huggingface_hub.
        except Exception as error:
            raise WeightsError(
                f"base_model.source: {repository!r} at {revision[:12]} cannot be downloaded "
                f"({type(error).__name__}). Check the id, the revision and the network, or use a local folder."
            ) from error
        complete.touch()
    return folder.resolve()
