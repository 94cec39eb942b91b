"""Sources of base models: embedded, folder, single file, hub; each becomes a verified local folder."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from sdlora.core.errors import WeightsError
from sdlora.core.files import flush_folder
from sdlora.core.refs import BaseModelRef
from sdlora.models.config import BaseModelConfig
from sdlora.models.families.layouts import find_layout
from sdlora.models.files.digests import DigestCache, folder_digest, record_digests, recorded_digests
from sdlora.models.files.folder_check import PICKLE_SUFFIXES, check_folder, pickle_message
from sdlora.models.files.single_file import convert_single_file

EMBEDDED = Path(__file__).parents[2] / "assets" / "base"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_SETTINGS = ("model_index.json", "*/config.json")
_HUB_FILES = ("*.json", "*.safetensors", "merges.txt")


def load_base_model(config: BaseModelConfig, home: str | PathLike[str]) -> BaseModelRef:
    """Find the base model, check that it is complete, and compute its digest.

    Only a hub id is downloaded. No weights are read into memory.

    Args:
        config: source of the base model.
        home: state folder. Digests are cached under `cache/`, converted and downloaded models under `bases/`.
    Raises:
        WeightsError: the model is missing, damaged, pickled or unsupported; the message names file and remedy.
    """
    home = Path(home)
    name, folder = _resolve(config, home)
    check_folder(folder)
    digest = folder_digest(folder, DigestCache.of_home(home))
    return BaseModelRef(name=name, folder=folder, digest=digest, quantize=config.quantize)


def verify(ref: BaseModelRef, home: Path | None = None) -> None:
    """Check that the folder of a reference still has the reference's digest.

    Raises:
        WeightsError: a file is missing or has changed.
    """
    check_folder(ref.folder)
    digest = folder_digest(ref.folder, DigestCache.of_home(home) if home else None)
    if digest != ref.digest:
        raise WeightsError(
            f"The base model {ref.name} in {ref.folder} has digest {digest[:12]}, expected {ref.digest[:12]}: "
            "its files changed. Restore the files, or start again from the changed base model."
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
        return path.stem, convert_single_file(path, config.layout, home)
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


def _download(repository: str, revision: str, home: Path) -> Path:
    from huggingface_hub import snapshot_download

    folder = home / "bases" / f"{repository.replace('/', '--')}-{revision[:12]}"
    if recorded_digests(folder) is None:  # written last, so a folder with it is complete
        try:
            snapshot_download(repository, revision=revision, local_dir=folder, allow_patterns=list(_HUB_SETTINGS))
            parts = find_layout(folder).folders
            # Only the parts' folders: many repositories hold the same weights a second time as one file.
            patterns = [f"{part}/{name}" for part in parts for name in _HUB_FILES]
            snapshot_download(repository, revision=revision, local_dir=folder, allow_patterns=patterns)
        except WeightsError:
            raise
        # No network, a wrong id and a wrong revision raise different exceptions of httpx and huggingface_hub.
        except Exception as error:
            raise WeightsError(
                f"base_model.source: {repository!r} at {revision[:12]} cannot be downloaded "
                f"({type(error).__name__}). Check the id, the revision and the network, or use a local folder."
            ) from error
        flush_folder(folder)
        record_digests(folder)
    return folder.resolve()
