"""Duel: the scores of base, champion and candidate, with the images behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sdlora.core.config_base import FrozenConfig
from sdlora.core.errors import EvaluationError
from sdlora.core.files import json_digest
from sdlora.records.metrics import Estimate

ContestantName = Literal["base", "champion", "candidate"]
CONTESTANTS: tuple[ContestantName, ...] = ("base", "champion", "candidate")
DUEL_FILE = "duel.json"


class Scores(FrozenConfig):
    """Metrics of one contestant by name; a metric that could not be measured is absent."""

    adapter_digest: str | None = Field(description="None for the bare base model")
    metrics: dict[str, Estimate]


class Sample(FrozenConfig):
    """Row of the duel: a held-out image, its prompt and seed, and the training image nearest to the candidate's."""

    held_out_sha256: str
    prompt: str
    seed: int
    nearest_training_sha256: str
    nearest_similarity: float = Field(description="cosine of image features, candidate's sample to training image")
    nearly_a_copy: bool


class ShownImages(FrozenConfig):
    """Small PNGs of one row of the grids, relative to the duel's folder."""

    prompt: str
    real: str
    base: str
    champion: str | None
    candidate: str
    nearest_training: str


class Duel(FrozenConfig):
    """Scores of base, champion (if any) and candidate on the same prompts, seeds and held-out images."""

    inputs_digest: str = Field(description="digest of everything that decides the outcome: a finished duel is reused")
    evaluation_version: int
    base_digest: str
    snapshot_digest: str
    candidate_digest: str
    candidate_snapshot_digest: str
    champion_digest: str | None
    champion_snapshot_digest: str | None
    settings: dict[str, Any] = Field(description="the evaluation section of the configuration")
    scores: dict[ContestantName, Scores]
    against_base: dict[str, Estimate] = Field(description="candidate minus base, paired")
    against_champion: dict[str, Estimate] = Field(description="candidate minus champion, paired; empty without one")
    held_out_copied_share: float = Field(description="share of real held-out images as close to a training image")
    samples: tuple[Sample, ...]
    shown: tuple[ShownImages, ...]
    files: dict[str, str] = Field(description="SHA-256 of every image file, by name relative to the folder")
    grid: str = "grid.png"
    before_after_grid: str = "before-after.png"
    nearest_grid: str = "nearest.png"

    @property
    def contestants(self) -> tuple[ContestantName, ...]:
        """Contestants in the order of display."""
        return tuple(name for name in CONTESTANTS if name in self.scores)

    def digest(self) -> str:
        """Compute the SHA-256 of the whole duel; decisions and approvals are bound to it."""
        return json_digest(self.model_dump(mode="json"))


def load_duel(folder: Path) -> Duel:
    """Read `folder/duel.json`.

    Raises:
        EvaluationError: the file is missing or not a duel.
    """
    path = folder / DUEL_FILE
    try:
        return Duel.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} is not a finished duel ({error}). Run the evaluation again.") from error
