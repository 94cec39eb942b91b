"""Validation result of the adapter at one step of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdlora.records.metrics import Estimate
from sdlora.statistics.bootstrap import Resampled, paired_difference
from sdlora.training.config import KeepBy


@dataclass(frozen=True)
class ValidationResult:
    """Scores of the adapter of one step on the held-out images; lower is better.

    Attributes:
        step: steps done before the validation.
        errors: (N,) one validation error per image; images and noise are always the same.
        sha256: digest of the weights file; None if the weights are not kept.
        kid: KID of the drawn images; None if none were drawn.
    """

    step: int
    errors: Tensor
    sha256: str | None = None
    kid: Resampled | None = None

    @property
    def loss(self) -> float:
        return float(self.errors.mean())

    def score(self, by: KeepBy) -> float:
        """Return the score to minimise: KID or loss; without drawn images always the loss; infinite if not a number."""
        score = self.kid.value if by == "kid" and self.kid else self.loss
        return math.inf if math.isnan(score) else score  # no comparison with NaN is true, so it would stay the best

    def less(self, other: ValidationResult | None, by: KeepBy, seed: int) -> Estimate | None:
        """Subtract the other result, with an interval paired by image; None with fewer than two images."""
        if other is None:
            return None
        if by == "kid" and self.kid and other.kid:
            return self.kid.minus(other.kid)
        if self.errors.numel() < 2:
            return None
        return paired_difference(self.errors, other.errors, seed)

    def as_metrics(self) -> dict[str, float]:
        """Return the points of the run's curves by name."""
        metrics = {"validation_loss": self.errors.mean().item()}
        if self.kid:
            estimate = self.kid.estimate
            metrics |= {
                "validation_kid": estimate.value,
                "validation_kid_low": estimate.low,
                "validation_kid_high": estimate.high,
            }
        return metrics

    def to_json(self) -> dict[str, Any]:
        kid = {"kid": [self.kid.value, self.kid.resamples.tolist()]} if self.kid else {}
        return {"step": self.step, "errors": self.errors.tolist(), "sha256": self.sha256, **kid}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ValidationResult:
        kid = None
        if "kid" in value:
            kid_value, resamples = value["kid"]
            kid = Resampled(kid_value, torch.tensor(resamples, dtype=torch.float64))
        return cls(value["step"], torch.tensor(value["errors"], dtype=torch.float32), value["sha256"], kid)
