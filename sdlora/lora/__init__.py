"""Low-rank adapters: attach, save, load, merge.

Source: Hu et al. 2021, arXiv:2106.09685: W' = W + (alpha / rank) B A, with A (rank, in) and B (out, rank).

The settings are light; the other names import PyTorch and peft when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlora.core.lazy import names_on_first_use
from sdlora.lora.config import LoraConfig, ResolvedLora

if TYPE_CHECKING:
    from sdlora.lora.attach import attach_lora
    from sdlora.lora.load import load_adapter, merge, open_adapter
    from sdlora.lora.save import save_adapter

__all__ = ["LoraConfig", "ResolvedLora", "attach_lora", "load_adapter", "merge", "open_adapter", "save_adapter"]

_HOMES = {
    "attach_lora": "sdlora.lora.attach",
    "load_adapter": "sdlora.lora.load",
    "merge": "sdlora.lora.load",
    "open_adapter": "sdlora.lora.load",
    "save_adapter": "sdlora.lora.save",
}

__getattr__ = names_on_first_use(__name__, _HOMES)
