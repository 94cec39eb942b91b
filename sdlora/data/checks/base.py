"""What a check on single images is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from sdlora.data.config import DataConfig
from sdlora.data.decode import Header
from sdlora.store import Verdict


@dataclass(frozen=True)
class Picture:
    """One image as the checks see it.

    Attributes:
        header: None where the bytes are no picture at all.
        rgb: None where decoding failed, or was not tried.
        problem: why, in words.
    """

    header: Header | None
    rgb: Image.Image | None
    problem: str | None


@dataclass(frozen=True)
class Check:
    """One cleaning rule: a score that is taken once, and what the settings make of it.

    Attributes:
        score: of a picture; None where it cannot be had (nothing was decoded).
        settings: the fields of DataConfig that decide.
        rejects: (score, config) -> the reason in words, or None if the image passes.
        ends: a rejected image is not decoded, so later checks may have no score.
        tells_problem: the reason is followed by why decoding failed.
    """

    name: str
    version: int
    score: Callable[[Picture], float | None]
    settings: tuple[str, ...]
    rejects: Callable[[float, DataConfig], str | None]
    ends: bool = False
    tells_problem: bool = False

    def parameters(self, config: DataConfig) -> str:
        """Digest of the settings that decide: the key under which a verdict is recorded."""
        return parameters_digest({name: getattr(config, name) for name in self.settings})


@dataclass(frozen=True)
class Ruling:
    """What one check decided of one image."""

    check: str
    version: int
    parameters: str
    score: float | None
    reason: str | None

    @property
    def verdict(self) -> Verdict:
        return "rejected" if self.reason else "accepted"


def parameters_digest(settings: dict[str, object]) -> str:
    """16 hexadecimal digits that name these settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
