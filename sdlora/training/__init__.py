"""Fine-tune an adapter on a snapshot, resumable to the bit.

`TrainingConfig` is light; the other names import PyTorch when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlora.imports import names_on_first_use
from sdlora.training.config import TrainingConfig

if TYPE_CHECKING:
    from sdlora.training.fine_tuning import fine_tune
    from sdlora.training.identity import run_digest
    from sdlora.training.presets import settle, settle_lora

__all__ = ["TrainingConfig", "fine_tune", "run_digest", "settle", "settle_lora"]


_HOMES = {
    "fine_tune": "sdlora.training.fine_tuning",
    "run_digest": "sdlora.training.identity",
    "settle": "sdlora.training.presets",
    "settle_lora": "sdlora.training.presets",
}

__getattr__ = names_on_first_use(__name__, _HOMES)
