"""Bounds of the settings in a base model's JSON files, one model per kind of file.

Only settings that decide sizes are listed: of images, schedules, prompts and lists of layers. The widths of networks
are compared with the weights' files when a network is built (`sdlora.models.outline`). Bounds leave several times the
largest published value.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sdlora.core.config_base import first_problem
from sdlora.core.errors import WeightsError
from sdlora.core.quoting import quoted
from sdlora.models.families.layouts import Layout, read_json

_Width = Annotated[int, Field(ge=1, le=2**17)]
_Count = Annotated[int, Field(ge=1, le=512)]
_Levels = Annotated[list[_Width], Field(min_length=1, max_length=8)]
_LatentSide = Annotated[int, Field(ge=1, le=1024)]
_Finite = Annotated[float, Field(allow_inf_nan=False, gt=-1e6, lt=1e6)]
_Positive = Annotated[float, Field(allow_inf_nan=False, gt=0, lt=1e6)]
_Beta = Annotated[float, Field(gt=0, lt=1)]
_MAX_TIMESTEPS = 10_000


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Scheduler(_Settings):
    num_train_timesteps: int = Field(1000, ge=1, le=_MAX_TIMESTEPS)
    steps_offset: int = Field(0, ge=0, le=100)
    beta_start: _Beta = 0.0001
    beta_end: _Beta = 0.02
    trained_betas: list[_Beta] | None = Field(None, max_length=_MAX_TIMESTEPS)
    shift: _Positive = 1.0
    base_image_seq_len: int | None = Field(None, ge=1, le=2**16)
    max_image_seq_len: int | None = Field(None, ge=1, le=2**16)


class _Autoencoder(_Settings):
    block_out_channels: _Levels
    latent_channels: _Width
    layers_per_block: _Count = 1
    scaling_factor: _Positive = 0.18215
    shift_factor: _Finite | None = None


class _UNet(_Settings):
    sample_size: _LatentSide
    in_channels: _Width
    block_out_channels: _Levels
    cross_attention_dim: _Width
    layers_per_block: _Count | Annotated[list[_Count], Field(max_length=8)] = 2
    addition_time_embed_dim: _Width | None = None
    projection_class_embeddings_input_dim: _Width | None = None


class _Transformer(_Settings):
    in_channels: _Width
    num_layers: _Count
    num_attention_heads: _Count
    attention_head_dim: _Width
    joint_attention_dim: _Width
    pooled_projection_dim: _Width


class _Transformer3(_Transformer):
    sample_size: _LatentSide
    pos_embed_max_size: _LatentSide = 96


class _FluxTransformer(_Transformer):
    num_single_layers: _Count
    guidance_embeds: bool


class _Clip(_Settings):
    vocab_size: int = Field(ge=1, le=2**22)
    hidden_size: _Width
    num_hidden_layers: _Count
    max_position_embeddings: int = Field(77, ge=1, le=8192)
    projection_dim: _Width | None = None


class _T5(_Settings):
    vocab_size: int = Field(ge=1, le=2**22)
    d_model: _Width
    num_layers: _Count


_DENOISERS: dict[str, type[_Settings]] = {"sd3": _Transformer3, "flux": _FluxTransformer}
_T5_FOLDERS = {"sd3": "text_encoder_3", "flux": "text_encoder_2"}


def check_settings(folder: Path, layout: Layout) -> None:
    """Check the settings files of a base model folder.

    Raises:
        WeightsError: a file is missing or damaged, or a setting is missing or out of bounds.
    """
    _check(folder / "scheduler" / "scheduler_config.json", _Scheduler)
    _check(folder / "vae" / "config.json", _Autoencoder)
    _check(folder / layout.denoiser / "config.json", _DENOISERS.get(layout.name, _UNet))
    for text in layout.text_of(folder):
        is_t5 = _T5_FOLDERS.get(layout.name) == text.encoder
        settings = _check(folder / text.encoder / "config.json", _T5 if is_t5 else _Clip)
        if isinstance(settings, _Clip):
            _check_prompt_length(folder / text.tokenizer / "tokenizer_config.json", settings.max_position_embeddings)


def _check(path: Path, model: type[_Settings]) -> _Settings:
    try:
        return model.model_validate(read_json(path))
    except ValidationError as error:
        raise WeightsError(
            f"base_model.source: {path} has a setting that no supported model has: {first_problem(error)}. "
            "Copy the file again, or use another model."
        ) from error


def _check_prompt_length(path: Path, positions: int) -> None:
    """Check that prompts are cut to the positions of the encoder; T5's prompts have the family's length."""
    length = read_json(path).get("model_max_length")
    if not isinstance(length, int) or not 1 <= length <= positions:
        raise WeightsError(
            f"base_model.source: {path} has model_max_length {quoted(length)}, expected a whole number from 1 to the "
            f"{positions} positions of the text encoder. Copy the file again."
        )
