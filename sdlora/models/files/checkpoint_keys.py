"""Recognition of a single `.safetensors` checkpoint by the names of its tensors; no tensor is read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from sdlora.core.errors import WeightsError
from sdlora.models.families.layouts import LAYOUTS, FamilyName

_DENOISER = "model.diffusion_model."
# The first matching family counts: each mark is a tensor that no family above it has. Transformers are also published
# without the outer name.
_FAMILY_MARKS: tuple[tuple[FamilyName, tuple[str, ...]], ...] = (
    ("flux", ("double_blocks.0.img_attn.qkv.weight", f"{_DENOISER}double_blocks.0.img_attn.qkv.weight")),
    ("sd3", ("joint_blocks.0.x_block.attn.qkv.weight", f"{_DENOISER}joint_blocks.0.x_block.attn.qkv.weight")),
    ("sdxl", ("conditioner.embedders.1.model.positional_embedding",)),
    ("sd2", ("cond_stage_model.model.positional_embedding",)),
    ("sd1", ("cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",)),
)
_TEXT_PREFIXES: dict[FamilyName, dict[str, str]] = {
    "sd1": {"text_encoder": "cond_stage_model."},
    "sd2": {"text_encoder": "cond_stage_model."},
    "sdxl": {"text_encoder": "conditioner.embedders.0.", "text_encoder_2": "conditioner.embedders.1."},
    "sd3": {
        "text_encoder": "text_encoders.clip_l.",
        "text_encoder_2": "text_encoders.clip_g.",
        "text_encoder_3": "text_encoders.t5xxl.",
    },
    "flux": {"text_encoder": "text_encoders.clip_l.", "text_encoder_2": "text_encoders.t5xxl."},
}
_ADAPTER_MARKS = (".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", ".hada_w1", ".lokr_w1")


@dataclass(frozen=True)
class CheckpointKind:
    """Family and content of a checkpoint.

    Attributes:
        family: family of the model.
        missing: folders of the parts whose weights the checkpoint lacks.
        velocity: the checkpoint is marked as predicting velocity.
        zero_snr: the checkpoint is marked as trained with zero terminal SNR.
    """

    family: FamilyName
    missing: tuple[str, ...]
    velocity: bool = False
    zero_snr: bool = False


def recognise(path: Path) -> CheckpointKind:
    """Recognise a checkpoint in the format of an original code base.

    Raises:
        WeightsError: the file is an adapter, one part of a diffusers folder, or of no supported family.
    """
    with safe_open(path, framework="pt") as file:
        keys = frozenset(file.keys())
    family = next((name for name, marks in _FAMILY_MARKS if keys.intersection(marks)), None)
    if family is None:
        raise WeightsError(f"base_model.source: {path.name} {_describe_other(keys)}")
    prefixes = {"vae": ("first_stage_model.", "vae."), **{part: (p,) for part, p in _TEXT_PREFIXES[family].items()}}
    missing = tuple(
        part for part, part_prefixes in prefixes.items() if not any(key.startswith(part_prefixes) for key in keys)
    )
    # Fine-tunes of XL that predict velocity are marked by two empty tensors, which ComfyUI also reads.
    return CheckpointKind(family, missing, velocity="v_pred" in keys, zero_snr="ztsnr" in keys)


def _describe_other(keys: Collection[str]) -> str:
    if any(mark in key for key in keys for mark in _ADAPTER_MARKS):
        return "is an adapter, not a base model. Set base_model.source to the model that it was trained on."
    if any(key.startswith(("down_blocks.", "transformer_blocks.", "text_model.", "encoder.")) for key in keys):
        return "is one part of a base model in diffusers' format. Set base_model.source to the whole folder."
    titles = ", ".join(layout.title for layout in LAYOUTS)
    return f"has the tensor names of no supported family; supported: {titles}."
