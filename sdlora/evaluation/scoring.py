"""Metrics of every contestant, and the paired differences between them.

Means and distances have bootstrap intervals. Shares have Wilson's and Newcombe's, which also hold for rare shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdlora.evaluation import neighbours
from sdlora.evaluation.config import EvaluationConfig
from sdlora.records.metrics import Estimate
from sdlora.statistics import distances
from sdlora.statistics.bootstrap import estimate, resample_counts, resampled_means
from sdlora.statistics.shares import share, share_difference


@dataclass(frozen=True)
class RealFeatures:
    """Features of real images; captions are known for all of them."""

    held_out: Tensor  # (N, D), row i belongs to prompt i
    held_out_captions: Sequence[Sequence[str]]
    train: Tensor  # (M, D)
    train_captions: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Measured:
    """Measurements of one contestant, before statistics."""

    features: Tensor  # (N, D) of its samples
    batch_seconds: Tensor  # (batches,)
    per_image: Mapping[str, Tensor]  # metric -> (N,), such as denoising_psnr


class Scoreboard:
    """Metrics of contestants on the same resamples of the same N prompts, in `scores` by contestant and name."""

    def __init__(self, prompts: Sequence[str], real: RealFeatures, config: EvaluationConfig) -> None:
        self.prompts, self.real, self.config = prompts, real, config
        self.counts = resample_counts(len(prompts), config.resamples, config.seed)
        self._fid_counts = self.counts[: config.fid_resamples]
        self.held_out_copies = self._nearly_copies(real.held_out)
        self.scores: dict[str, dict[str, Estimate]] = {}
        self._resampled: dict[str, dict[str, tuple[float, Tensor, bool]]] = {}
        self._hits: dict[str, dict[str, Tensor]] = {}

    def score(self, contestant: str, measured: Measured) -> None:
        """Add the contestant's metrics to `scores`, each with its interval."""
        copies = self._nearly_copies(measured.features)
        self._hits[contestant] = {"copied_share": copies, "subject_top10": self._subject_found(measured.features)}
        table = {
            name: (values.double().mean().item(), resampled_means(values, self.counts), False)
            for name, values in measured.per_image.items()
        }
        real, generated = self.real.held_out, measured.features
        kernels = distances.polynomial_kernels(real, generated)
        table["kid"] = distances.kid(real, generated), distances.resampled_kid(kernels, self.counts), False
        inner = distances.linear_kernels(real, generated)
        table["fid"] = distances.fid(real, generated), distances.resampled_fid(inner, self._fid_counts), True
        self._resampled[contestant] = table
        self.scores[contestant] = {
            **{name: estimate(value, resampled, centre=centre) for name, (value, resampled, centre) in table.items()},
            **{name: share(hits) for name, hits in self._hits[contestant].items()},
            "excess_copies": share_difference(copies, self.held_out_copies),
            **_times(measured.batch_seconds),
        }

    def difference(self, contestant: str, rival: str) -> dict[str, Estimate]:
        """Subtract the metrics of `rival` from those of `contestant`, paired by prompt and resample."""
        mine, theirs = self._resampled[contestant], self._resampled[rival]
        differences = {
            name: estimate(value - theirs[name][0], resampled - theirs[name][1], centre=centre)
            for name, (value, resampled, centre) in mine.items()
            if name in theirs
        }
        shares = {
            name: share_difference(hits, self._hits[rival][name]) for name, hits in self._hits[contestant].items()
        }
        # The share of near copies among held-out images is the same for both, so it cancels.
        return differences | shares | {"excess_copies": shares["copied_share"]}

    def _nearly_copies(self, features: Tensor) -> Tensor:
        similarity, _ = neighbours.nearest(features, self.real.train)
        return (similarity >= self.config.copy_similarity).double()

    def _subject_found(self, features: Tensor) -> Tensor:
        real = torch.cat([self.real.held_out, self.real.train])
        captions = [*self.real.held_out_captions, *self.real.train_captions]
        return neighbours.subject_found(features, self.prompts, real, captions)


def _times(batch_seconds: Tensor) -> dict[str, Estimate]:
    """Compute the median, which one slow first batch does not move, and the 95th percentile over batches."""
    median, slow = (torch.quantile(batch_seconds.double(), q).item() for q in (0.5, 0.95))
    if len(batch_seconds) < 2:
        middle = Estimate(value=median, low=median, high=median)
    else:
        counts = resample_counts(len(batch_seconds), 1000, seed=0).long()
        medians = [torch.repeat_interleave(batch_seconds.double(), row).quantile(0.5) for row in counts]
        middle = estimate(median, torch.stack(medians))
    return {"seconds_per_image": middle, "seconds_per_image_p95": Estimate(value=slow, low=slow, high=slow)}
