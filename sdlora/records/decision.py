"""Decision of the gate on a duel, check by check."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from sdlora.core.config_base import FrozenConfig
from sdlora.core.files import json_digest

DECISION_FILE = "decision.json"

Answer = Literal["better", "worse", "cannot tell"]
"""Answer of the gate. "better": every check passed. "cannot tell": the checks that failed leave both possible.
"worse": all other duels."""


class GateCheck(FrozenConfig):
    """Rule of the gate with its outcome, and the reason as a sentence."""

    name: str
    passed: bool
    reason: str


def _answer_without_doubt(fields: dict[str, Any]) -> Answer:
    return "better" if fields["promote"] else "worse"


class Decision(FrozenConfig):
    """Decision on the duel with `duel_digest`; void for any other duel."""

    promote: bool = Field(description="the candidate becomes the champion, without a person")
    reasons: tuple[str, ...] = Field(
        description="reasons of all checks if all passed; else of the failed checks, and what may help"
    )
    checks: tuple[GateCheck, ...]
    duel_digest: str
    candidate_digest: str
    champion_digest: str | None
    answer: Answer = Field(default_factory=_answer_without_doubt)
    waits: bool = Field(False, description="the candidate waits for a person's decision")

    def digest(self) -> str:
        """SHA-256 of the whole decision: the same duel under another rule gives another.

        The answer follows from the checks. A decision that waits differs from one that does not.
        """
        derived = {"answer"} if self.waits else {"answer", "waits"}
        return json_digest(self.model_dump(mode="json", exclude=derived))
