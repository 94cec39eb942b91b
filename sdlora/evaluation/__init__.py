"""Score base, champion and candidate on the same prompts, seeds and held-out images, and decide between them.

The settings, the gate and the evidence are light; `run_duel` imports PyTorch and diffusers when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlora.core.lazy import names_on_first_use
from sdlora.evaluation.config import EvaluationConfig, GateConfig
from sdlora.evaluation.gate import decide
from sdlora.records.decision import Decision
from sdlora.records.duel import Duel, load_duel

if TYPE_CHECKING:
    from sdlora.evaluation.duel import run_duel

__all__ = ["Decision", "Duel", "EvaluationConfig", "GateConfig", "decide", "load_duel", "run_duel"]

__getattr__ = names_on_first_use(__name__, {"run_duel": "sdlora.evaluation.duel"})
