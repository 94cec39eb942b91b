"""Loading of image models (classifiers, captioning models) from a folder or the hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sdlora.core.errors import DataError, WeightsError

_HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})")
_FILE_PATTERNS = ("*.json", "*.txt", "*.safetensors")  # no code, no pickles


def model_folder(source: str, setting: str) -> Path:
    """Return the folder of a model, downloaded first if `source` is a hub id `owner/name@commit`.

    Raises:
        DataError: the model does not exist; the message names `setting`.
    """
    if Path(source).is_dir():
        return Path(source)
    hub_id = _HUB_ID.fullmatch(source)
    if not hub_id:
        raise DataError(
            f"data.{setting}: {source!r} is neither a folder nor a hub id with its commit. "
            "Give a folder in the transformers layout, or owner/name@ and the 40 hexadecimal digits of a commit."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id[1], revision=hub_id[2], allow_patterns=list(_FILE_PATTERNS)))
    # No network, a wrong id and a wrong commit raise different exceptions of httpx and huggingface_hub.
    except Exception as error:
        raise DataError(
            f"data.{setting}: {source!r} cannot be downloaded ({type(error).__name__}). Check the id, the commit and "
            "the network, or use a local folder."
        ) from error


def model_digest(folder: Path) -> str:
    """SHA-256 over the model's files, ordered by path. It is cached until a size or modification time changes."""
    files = sorted(path for pattern in _FILE_PATTERNS for path in folder.glob(pattern))
    stamps = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return _digest(stamps)


@lru_cache(maxsize=8)
def _digest(stamps: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, _, _ in stamps:
        with Path(name).open("rb") as file:
            digest.update(f"{Path(name).name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def load_parts(folder: Path, setting: str, parts: Sequence[str]) -> list[Any]:
    """Load objects of these `transformers` classes ("AutoTokenizer", ...) from safetensors, without remote code.

    Raises:
        WeightsError: a part is missing, damaged or of another kind.
    """
    import transformers

    if not list(folder.glob("*.safetensors")):
        raise WeightsError(
            f"data.{setting}: {folder} has no .safetensors file. Pickled weights are not loaded, as they can run code; "
            "convert them with the model's save_pretrained()."
        )
    logging = transformers.utils.logging
    had_progress_bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # the caller shows progress
    try:
        return [_load(folder, setting, part) for part in parts]
    finally:
        if had_progress_bar:
            logging.enable_progress_bar()


def _load(folder: Path, setting: str, part: str) -> Any:
    import transformers

    # Image processors and tokenizers have no weights, and reject this option.
    options = {"use_safetensors": True} if "Model" in part else {}
    try:
        return getattr(transformers, part).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    except Exception as error:
        raise WeightsError(f"data.{setting}: {folder} has no usable {part} ({error}).") from error


def usual_device() -> str:
    """Return "cuda" if a GPU is available, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
