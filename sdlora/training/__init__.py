"""Fine-tune an adapter on a snapshot, resumable to the bit.

`TrainingConfig` is light; the other names import PyTorch when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sdlora.imports import garbage_left
from sdlora.training.config import TrainingConfig

if TYPE_CHECKING:
    from sdlora.training.fine_tuning import fine_tune
    from sdlora.training.identity import run_digest
    from sdlora.training.presets import settle, settle_lora

__all__ = ["TrainingConfig", "fine_tune", "run_digest", "settle", "settle_lora"]


# No module may be named like a function here: importing it would put the module in the function's place.
_HOMES = {
    "fine_tune": "sdlora.training.fine_tuning",
    "run_digest": "sdlora.training.identity",
    "settle": "sdlora.training.presets",
    "settle_lora": "sdlora.training.presets",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with garbage_left():
        return getattr(import_module(_HOMES[name]), name)
