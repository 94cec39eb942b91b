"""Prompts of a contest: captions of held-out images with their seeds, and neutral subjects."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sdlora.core.errors import EvaluationError
from sdlora.core.refs import BaseModelRef
from sdlora.data.snapshot import SnapshotRow
from sdlora.evaluation.config import EvaluationConfig
from sdlora.models.files.sources import EMBEDDED

_NEUTRAL_SUBJECTS = (
    *("koala", "red apple", "rocket", "umbrella", "guitar", "octopus", "pizza", "castle"),
    *("bicycle", "sunflower", "owl", "teapot", "sailboat", "mushroom", "football", "snowman"),
)


@dataclass(frozen=True)
class Prompt:
    """Caption of a held-out image, and the seed of the noise that it is drawn from."""

    row: SnapshotRow
    text: str
    seed: int


def choose_prompts(held_out: Sequence[SnapshotRow], config: EvaluationConfig) -> tuple[Prompt, ...]:
    """Choose at most `config.max_prompts` held-out images, and give each its first caption and a seed.

    Choice and seeds come from a hash of (seed, image digest). A new held-out image changes no other seed and little of
    the choice, so a champion's cached images stay useful.

    Raises:
        EvaluationError: fewer than `config.min_prompts` held-out images.
    """
    prompts = [Prompt(row, row.captions[0], _seed(config.seed, row.sha256)) for row in held_out]
    if len(prompts) < config.min_prompts:
        raise EvaluationError(
            f"The snapshot holds {len(prompts)} held-out images; evaluation.min_prompts asks for "
            f"{config.min_prompts}. Collect more images or raise data.held_out_fraction."
        )
    return tuple(sorted(prompts, key=lambda prompt: (prompt.seed, prompt.row.sha256))[: config.max_prompts])


def neutral_prompts(base: BaseModelRef) -> tuple[str, ...]:
    """Return sixteen prompts of subjects that the base knows and no style trains on, worded as the base's captions."""
    prefix = "a noto emoji of" if base.folder == EMBEDDED else "a photograph of a"
    return tuple(f"{prefix} {subject}" for subject in _NEUTRAL_SUBJECTS)


def _seed(seed: int, sha256: str) -> int:
    """Compute a 32-bit seed, which every image tool accepts, so a sample can be drawn again in any of them."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{sha256}".encode()).digest()[:4], "little")
