"""Settings of the base model."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from sdlora.core.config_base import SettingsSection
from sdlora.core.refs import Quantization

COMMIT = re.compile(r"[0-9a-f]{40}")


class BaseModelConfig(SettingsSection):
    """Choice of the Stable Diffusion that adapters attach to.

    `source` is "embedded" (ships with sdlora, needs no network), a diffusers folder, a `.safetensors` checkpoint, or
    the id of a model on the Hugging Face hub. A hub id needs the commit that pins it.
    """

    source: str = Field("embedded", min_length=1, description="embedded, a folder, a .safetensors file or a hub id")
    revision: str | None = Field(None, description="the hub commit to use, 40 hexadecimal digits; only for a hub id")
    layout: str | None = Field(
        None,
        description="only for a .safetensors checkpoint: a diffusers folder with the settings and the tokenizers of "
        "the same architecture; not needed for the usual Stable Diffusion 1 and XL. Its weights are read only for "
        "parts that the checkpoint lacks",
    )
    quantize: Quantization | None = Field(
        None,
        description="hold the frozen denoiser's linear layers in fewer bits while an adapter is trained, to save "
        "memory: int8, or nf4 (four bits); needs bitsandbytes; null: as they are, as always in drawing and exporting",
    )

    @field_validator("revision")
    @classmethod
    def _revision_is_a_commit(cls, revision: str | None) -> str | None:
        if revision is not None and not COMMIT.fullmatch(revision):
            raise ValueError(f"{revision!r} is not a commit (40 hexadecimal digits); branches and tags can move")
        return revision
