"""Load a pinned base model, or build one from its parts.

`BaseModelConfig` is light; the other names import PyTorch and diffusers when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlora.core.lazy import names_on_first_use
from sdlora.models.config import BaseModelConfig

if TYPE_CHECKING:
    from sdlora.models.files.sources import load_base_model, verify
    from sdlora.models.stable_diffusion import StableDiffusion

__all__ = ["BaseModelConfig", "StableDiffusion", "load_base_model", "verify"]

_HOMES = {
    "StableDiffusion": "sdlora.models.stable_diffusion",
    "load_base_model": "sdlora.models.files.sources",
    "verify": "sdlora.models.files.sources",
}

__getattr__ = names_on_first_use(__name__, _HOMES)
