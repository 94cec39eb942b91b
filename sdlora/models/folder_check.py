"""Is this folder a whole Stable Diffusion? Answered before any part is built, naming the file that is not right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sdlora.errors import WeightsError

WEIGHTS_STEM = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")
SUPPORTED_PIPELINES = ("StableDiffusionPipeline",)


def check_folder(folder: Path) -> None:
    """Read every settings file and every weights header.

    Raises:
        WeightsError: a file is missing, damaged, pickled, or of a model family that is not supported.
    """
    index = read_json(folder / "model_index.json")
    family = index.get("_class_name")
    if family not in SUPPORTED_PIPELINES:
        raise WeightsError(
            f"base_model.source: {folder / 'model_index.json'} names the pipeline {family!r}; "
            f"supported: {', '.join(SUPPORTED_PIPELINES)}."
        )
    read_json(folder / "scheduler" / "scheduler_config.json")
    _check_tokenizer(folder / "tokenizer")
    for part in WEIGHTS_STEM:
        read_json(folder / part / "config.json")
        for path in weights_files(folder, part):
            check_safetensors(path)


def weights_files(folder: Path, part: str) -> list[Path]:
    """The safetensors files of one part: one file, the shards of an index, or the fp16 variant of either."""
    stem = WEIGHTS_STEM[part]
    for variant in ("", ".fp16"):
        single = folder / part / f"{stem}{variant}.safetensors"
        if single.is_file():
            return [single]
        shards = folder / part / f"{stem}.safetensors.index{variant}.json"
        if shards.is_file():
            return [folder / part / name for name in sorted(set(read_json(shards)["weight_map"].values()))]
    pickled = [path.name for path in (folder / part).glob("*") if path.suffix in PICKLE_SUFFIXES]
    if pickled:
        raise WeightsError(pickle_message(folder / part / pickled[0]))
    raise WeightsError(
        f"base_model.source: {folder / part / stem}.safetensors is missing. Copy the model folder again."
    )


def weights_variant(folder: Path, part: str) -> str | None:
    """The variant that `from_pretrained` wants to be told: "fp16" when the part exists in that one only."""
    name = weights_files(folder, part)[0].name
    return "fp16" if ".fp16" in name else None


def check_safetensors(path: Path) -> None:
    """Raises WeightsError when the file is missing, truncated or no safetensors file; tensor data is not read."""
    if not path.is_file():
        raise WeightsError(f"base_model.source: {path} is missing. Copy the model folder again.")
    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"base_model.source: {path} is damaged ({error}). Copy the file again.") from error


def read_json(path: Path) -> dict[str, Any]:
    """Raises WeightsError when the file is missing or is not a JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(
            f"base_model.source: {path} is missing; expected a Stable Diffusion folder as diffusers saves it."
        ) from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"base_model.source: {path} is damaged ({error}). Copy the file again.") from error
    if not isinstance(value, dict):
        raise WeightsError(f"base_model.source: {path} is damaged (not a JSON object). Copy the file again.")
    return value


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
