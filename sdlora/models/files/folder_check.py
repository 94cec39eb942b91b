"""Checks that a folder is a complete Stable Diffusion, before any part is built."""

from __future__ import annotations

from pathlib import Path

from sdlora.core.errors import WeightsError
from sdlora.core.quoting import quoted
from sdlora.core.tensor_header import read_header
from sdlora.models.families.layouts import find_layout, read_json
from sdlora.models.families.widths import check_widths
from sdlora.models.files.settings_check import check_settings

PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")


def check_folder(folder: Path) -> None:
    """Check every settings file and every weights header of a base model folder.

    Raises:
        WeightsError: a file is missing, damaged, pickled, or of an unsupported family; the message names the file.
    """
    layout = find_layout(folder)
    check_settings(folder, layout)
    text_folders = layout.text_of(folder)
    for text in text_folders:
        _check_tokenizer(folder / text.tokenizer)
    for part in ("vae", layout.denoiser, *(text.encoder for text in text_folders)):
        for path in weights_files(folder, part):
            check_safetensors(path)
    check_widths(folder, layout)


def weights_files(folder: Path, part: str) -> list[Path]:
    """Return the safetensors files of one part: one file, the shards of an index, or the fp16 variant of either.

    Raises:
        WeightsError: the weights are missing, or a pickle.
    """
    stem = find_layout(folder).weights_stems[part]
    for variant in ("", ".fp16"):
        single = folder / part / f"{stem}{variant}.safetensors"
        if single.is_file():
            return [single]
        shards = folder / part / f"{stem}.safetensors.index{variant}.json"
        if shards.is_file():
            return [folder / part / name for name in _shard_names(shards)]
    pickled = [path.name for path in (folder / part).glob("*") if path.suffix in PICKLE_SUFFIXES]
    if pickled:
        raise WeightsError(pickle_message(folder / part / pickled[0]))
    raise WeightsError(
        f"base_model.source: {folder / part / stem}.safetensors is missing. Copy the model folder again."
    )


def _shard_names(index: Path) -> list[str]:
    """Read the names of the files that hold a part's weights; they are beside their index."""
    weight_map = read_json(index).get("weight_map")
    names = set(weight_map.values()) if isinstance(weight_map, dict) else set()
    for name in names or {""}:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise WeightsError(
                f"base_model.source: {index} is damaged: its weight_map names {quoted(name)}, expected names of "
                ".safetensors files in its folder. Copy the file again."
            )
    return sorted(names)


def weights_variant(folder: Path, part: str) -> str | None:
    """Return the `variant` argument of `from_pretrained`: "fp16" if the part exists in that variant only."""
    name = weights_files(folder, part)[0].name
    return "fp16" if ".fp16" in name else None


def check_safetensors(path: Path) -> None:
    """Check that a safetensors file is readable; tensor data is not read.

    Raises:
        WeightsError: the file is missing, truncated or no safetensors file.
    """
    try:
        read_header(path)
    except WeightsError as error:
        raise WeightsError(f"base_model.source: {error}") from error


def pickle_message(path: Path) -> str:
    return (
        f"base_model.source: {path} is a pickle, and a pickle can run any code when it is read. "
        "sdlora reads safetensors only: get the .safetensors edition of this model, or convert it in a sandbox "
        "that you trust (diffusers: save_pretrained(..., safe_serialization=True))."
    )


def _check_tokenizer(folder: Path) -> None:
    if (folder / "tokenizer.json").is_file():
        read_json(folder / "tokenizer.json")
        return
    read_json(folder / "vocab.json")
    if not (folder / "merges.txt").is_file():
        raise WeightsError(f"base_model.source: {folder / 'merges.txt'} is missing. Copy the model folder again.")
