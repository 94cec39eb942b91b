"""Decision of the gate on a duel, check by check."""

from __future__ import annotations

from pydantic import Field

from sdlora.core.config_base import FrozenConfig
from sdlora.core.files import json_digest

DECISION_FILE = "decision.json"


class GateCheck(FrozenConfig):
    """Rule of the gate with its outcome, and the reason as a sentence."""

    name: str
    passed: bool
    reason: str


class Decision(FrozenConfig):
    """Decision on the duel with `duel_digest`; void for any other duel."""

    promote: bool
    reasons: tuple[str, ...] = Field(description="reasons of all checks if promoted, else of the failed checks")
    checks: tuple[GateCheck, ...]
    duel_digest: str
    candidate_digest: str
    champion_digest: str | None

    def digest(self) -> str:
        """SHA-256 of the whole decision: the same duel under another rule gives another."""
        return json_digest(self.model_dump(mode="json"))
