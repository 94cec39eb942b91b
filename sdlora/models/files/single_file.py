"""Conversion of a `.safetensors` checkpoint to a diffusers folder, without a network.

A checkpoint holds weights, but no settings and no tokenizer. For Stable Diffusion 1 and XL, settings and tokenizer are
the same in every checkpoint and ship with sdlora (`assets/layouts`). For other families and for unusual editions they
come from a diffusers folder of the same architecture, `base_model.layout`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sdlora.core.errors import StorageError, WeightsError
from sdlora.core.files import file_sha256, written_aside
from sdlora.core.quoting import escaped
from sdlora.core.refs import BaseModelRef
from sdlora.models.families.layouts import FamilyName, Layout, find_layout
from sdlora.models.files.checkpoint_keys import CheckpointKind, recognise
from sdlora.models.files.digests import record_digests
from sdlora.models.files.folder_check import check_folder, check_safetensors
from sdlora.models.files.settings_check import check_settings

_SHIPPED_LAYOUTS = Path(__file__).parents[2] / "assets" / "layouts"
# The padding token of each tokenizer: OpenCLIP pads with its token 0.
_SHIPPED_TOKENIZERS: dict[FamilyName, dict[str, str]] = {
    "sd1": {"tokenizer": "<|endoftext|>"},
    "sdxl": {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"},
}
_CLIP_TOKENS = 77


def convert_single_file(path: Path, layout: str | None, home: Path) -> Path:
    """Convert a checkpoint to the folder `home/bases/<digest>/`, once per file and layout.

    Raises:
        WeightsError: the checkpoint is of no supported family, needs a layout, or does not fit `layout`.
        StorageError: the folder cannot be written.
    """
    check_safetensors(path)
    kind = recognise(path)
    custom_layout = Path(layout).expanduser() if layout else None
    if custom_layout is None and kind.family not in _SHIPPED_TOKENIZERS:
        raise WeightsError(_needs_layout_message(path, kind))
    family = find_layout(custom_layout or _SHIPPED_LAYOUTS / kind.family)
    if family.name != kind.family:
        raise WeightsError(
            f"base_model.layout: {custom_layout} is of {family.title}, but {path.name} has the tensors of "
            f"{kind.family}. Give a layout of the checkpoint's own family."
        )
    if custom_layout is not None:
        check_settings(custom_layout, family)
    settings = sorted((custom_layout or _SHIPPED_LAYOUTS).rglob("*.json"))
    key = hashlib.sha256("".join([file_sha256(path), *map(file_sha256, settings)]).encode()).hexdigest()
    folder = (home / "bases" / key[:16]).resolve()
    if (folder / "model_index.json").is_file():
        return folder
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}.layout")
    try:
        with written_aside(folder) as partial:
            with _layout_folder(custom_layout, kind, scratch) as layout_folder:
                pipeline = _read_checkpoint(path, layout_folder, kind, family)
                pipeline.save_pretrained(partial, safe_serialization=True)
            check_folder(partial)
            record_digests(partial)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"Cannot write the converted base model to {folder.parent}: {error}.") from error
    except NotImplementedError as error:  # a tensor that the file lacks is still on the meta device
        raise WeightsError(_misfit_message(path, custom_layout, "tensors are missing from the file")) from error
    return folder


def clip_tokenizer(pad_token: str) -> Any:
    """Build OpenAI's byte-pair tokenizer of CLIP from its merges: bytes, bytes that end a word, merged pieces."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    lines = (_SHIPPED_LAYOUTS / "clip" / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(symbol + "</w>" for symbol in alphabet), *(left + right for left, right in merges)]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad_token, model_max_length=_CLIP_TOKENS)


@contextmanager
def _layout_folder(custom_layout: Path | None, kind: CheckpointKind, scratch: Path) -> Iterator[Path]:
    """Provide the user's layout, or a temporary copy of the shipped layout with its tokenizers."""
    if custom_layout is not None:
        yield custom_layout
        return
    try:
        shutil.copytree(_SHIPPED_LAYOUTS / kind.family, scratch)
        for folder, pad_token in _SHIPPED_TOKENIZERS[kind.family].items():
            clip_tokenizer(pad_token).save_pretrained(scratch / folder)
        schedule = scratch / "scheduler" / "scheduler_config.json"
        schedule.write_text(json.dumps(json.loads(schedule.read_text()) | _schedule_of(kind)))
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _schedule_of(kind: CheckpointKind) -> dict[str, Any]:
    velocity = {"prediction_type": "v_prediction"} if kind.velocity else {}
    terminal = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if kind.zero_snr else {}
    return velocity | terminal


def _read_checkpoint(path: Path, layout: Path, kind: CheckpointKind, family: Layout) -> Any:
    from diffusers import AutoencoderKL

    from sdlora.models.families import family_of
    from sdlora.models.outline import checked_outline
    from sdlora.models.progress_bars import no_progress_bars

    opened = family_of(layout)
    pipeline_class = opened.pipeline_class
    encoders = {text.folder: text.encoder_class for text in opened.text_parts}
    for part, part_class in {family.denoiser: opened.denoiser_class, "vae": AutoencoderKL, **encoders}.items():
        if part not in kind.missing:
            try:
                checked_outline(part_class, layout, part, [path])
            except WeightsError as error:
                raise WeightsError(_misfit_message(path, layout, f"{part}/config.json describes another")) from error
    options = {"safety_checker": None} if "safety_checker" in signature(pipeline_class).parameters else {}
    parts = _parts_from_layout(path, layout, kind, family)
    try:
        with no_progress_bars():
            pipeline = pipeline_class.from_single_file(
                str(path),
                config=str(layout),
                local_files_only=True,
                torch_dtype=_checkpoint_dtype(path),
                **options,
                **parts,
            )
            for component in pipeline.components.values():
                if hasattr(component, "tie_weights"):  # T5 has two names for the same embedding; the file has one
                    component.tie_weights()
            return pipeline
    # For a wrong layout diffusers raises any error of its conversion (KeyError, ValueError, OSError, ...).
    except Exception as error:
        raise WeightsError(_misfit_message(path, layout, f"{type(error).__name__}: {escaped(error)}")) from error


def _parts_from_layout(path: Path, layout: Path, kind: CheckpointKind, family: Layout) -> dict[str, Any]:
    """Load the parts that the checkpoint lacks from the layout; FLUX checkpoints mostly hold the transformer only."""
    from sdlora.models import parts
    from sdlora.models.families import family_of

    ref = BaseModelRef(name=layout.name, folder=layout, digest="")
    encoders = {part.folder: part for part in family_of(layout).text_parts}
    folders = {text.encoder: text for text in family.text}
    loaded: dict[str, Any] = {}
    for part in kind.missing:
        if any((layout / part).glob("*.safetensors")):
            loaded[part] = (
                parts.load_autoencoder(ref) if part == "vae" else parts.load_text_encoder(ref, encoders[part])
            )
        elif part in folders and folders[part].optional:
            loaded |= {part: None, folders[part].tokenizer: None}
        else:
            raise WeightsError(
                f"base_model.source: {path.name} holds no weights of {part}, and {layout} has none either. "
                f"Set base_model.layout to a whole diffusers folder of {family.title}, with its weights."
            )
    return loaded


def _checkpoint_dtype(path: Path) -> Any:
    """Return the precision of the checkpoint, so that a half-precision file is not written at twice its size."""
    import torch

    with safe_open(path, framework="pt") as file:
        kinds = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
    if "F32" in kinds:
        return torch.float32
    return torch.float16 if kinds == {"F16"} else torch.bfloat16


def _needs_layout_message(path: Path, kind: CheckpointKind) -> str:
    reasons = {
        "sd2": "version 2 was published with two kinds of prediction, which its tensors do not distinguish",
        "sd3": "the tokenizer of its T5 encoder does not ship with sdlora",
        "flux": "the tokenizer of its T5 encoder does not ship with sdlora",
    }
    return (
        f"base_model.source: {path.name} holds weights only, and {reasons[kind.family]}. Set base_model.layout to a "
        "diffusers folder of the same architecture (model_index.json, the config.json of each part, tokenizers, "
        "scheduler)."
    )


def _misfit_message(path: Path, layout: Path | None, problem: str) -> str:
    if layout is None or _SHIPPED_LAYOUTS in layout.parents or layout.suffix == ".layout":
        return (
            f"base_model.source: {path} does not have the usual settings of its family ({problem}). "
            "Set base_model.layout to a diffusers folder with its own."
        )
    return (
        f"base_model.source: {path} cannot be read with base_model.layout {layout} ({problem}). "
        "Give the layout of the same architecture."
    )
