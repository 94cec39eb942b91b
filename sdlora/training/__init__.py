"""Fine-tune an adapter on a snapshot, resumable to the bit.

The settings are light; the other names import PyTorch when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlora.core.lazy import names_on_first_use
from sdlora.training.config import ResolvedTraining, TrainingConfig
from sdlora.training.defaults import resolve_lora, resolve_training

if TYPE_CHECKING:
    from sdlora.training.fine_tuning import fine_tune
    from sdlora.training.identity import run_digest

__all__ = ["ResolvedTraining", "TrainingConfig", "fine_tune", "resolve_lora", "resolve_training", "run_digest"]


_HOMES = {
    "fine_tune": "sdlora.training.fine_tuning",
    "run_digest": "sdlora.training.identity",
}

__getattr__ = names_on_first_use(__name__, _HOMES)
