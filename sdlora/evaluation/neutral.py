"""Prompts of things that a base model knows and nobody trains on: they show what was forgotten."""

from __future__ import annotations

from sdlora.core.refs import BaseModelRef
from sdlora.models.files.sources import EMBEDDED

_SUBJECTS = (
    *("koala", "red apple", "rocket", "umbrella", "guitar", "octopus", "pizza", "castle"),
    *("bicycle", "sunflower", "owl", "teapot", "sailboat", "mushroom", "football", "snowman"),
)


def neutral_prompts(base: BaseModelRef) -> tuple[str, ...]:
    """Sixteen subjects, in the words of the base's own captions."""
    kind = "a noto emoji of" if base.folder == EMBEDDED else "a photograph of a"
    return tuple(f"{kind} {subject}" for subject in _SUBJECTS)
