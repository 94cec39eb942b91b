"""Settings of exports: the precision of files, and the folder that gets each new champion."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sdlora.core.config_base import SettingsSection

DtypeName = Literal["fp32", "fp16", "bf16"]


class ExportConfig(SettingsSection):
    """Settings of the file that a drawing tool gets; they change neither the adapter nor the run."""

    on_promote: str | None = Field(
        None,
        min_length=1,
        description="folder that gets each new champion as NAME.safetensors, such as ComfyUI's models/loras",
    )
    reader: Literal["comfyui", "lycoris"] = Field(
        "comfyui", description="whose rule a DoRA is written for: comfyui (ComfyUI, Forge) or lycoris"
    )
    dtype: DtypeName = Field("fp32", description="precision of the file; fp16 and bf16 take half the bytes")
