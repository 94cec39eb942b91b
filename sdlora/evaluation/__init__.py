"""Score base, champion and candidate on the same prompts, seeds and held-out images, and decide between them.

The settings, the gate and the evidence are light; `run_duel` imports PyTorch and diffusers when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sdlora.evaluation.config import EvaluationConfig, GateConfig
from sdlora.evaluation.gate import decide
from sdlora.evidence import Decision, Duel, load_duel

if TYPE_CHECKING:
    from sdlora.evaluation.duel import run_duel

__all__ = ["Decision", "Duel", "EvaluationConfig", "GateConfig", "decide", "load_duel", "run_duel"]


def __getattr__(name: str) -> Any:
    if name != "run_duel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("sdlora.evaluation.duel").run_duel
