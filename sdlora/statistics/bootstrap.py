"""Confidence intervals by the bootstrap over images.

A resample is stored as counts: how often each image was drawn. Statistics of a thousand resamples are then matrix
products. Contestants are compared on the same counts, so the effect of a draw on both contestants cancels.
Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 13 and 16.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdlora.core.errors import EvaluationError
from sdlora.diffusion.seeds import step_generator
from sdlora.records.metrics import Estimate

_TAIL_SHARE = 0.025  # 95 % intervals


def resample_counts(images: int, resamples: int, seed: int) -> Tensor:
    """Draw R resamples of N images with replacement: (R, N) float64 counts; rows sum to N.

    Raises:
        EvaluationError: fewer than two images.
    """
    if images < 2:
        raise EvaluationError(f"An interval needs at least 2 images, got {images}.")
    generator = step_generator(seed, images, "bootstrap")
    indices = torch.randint(images, (resamples, images), generator=generator)
    counts = torch.zeros(resamples, images, dtype=torch.float64)
    return counts.scatter_add_(1, indices, torch.ones_like(indices, dtype=torch.float64))


def resampled_means(values: Tensor, counts: Tensor) -> Tensor:
    """Compute the mean of each resample: (N,) values, one per image, and (R, N) counts -> (R,) means."""
    return counts @ values.double() / counts.sum(1)


def estimate(value: float, resampled: Tensor, *, centre: bool = False) -> Estimate:
    """Combine a value with the 2.5 % and 97.5 % quantiles of its resamples.

    `centre` shifts the resamples so that their mean equals the value. Statistics such as FID need the shift, because
    they rise when a resample holds fewer distinct images than the full set.
    """
    if centre:
        resampled = resampled - resampled.mean() + value
    low, high = torch.quantile(
        resampled.double(), torch.tensor([_TAIL_SHARE, 1 - _TAIL_SHARE], dtype=torch.float64)
    ).tolist()
    return Estimate(value=value, low=low, high=high)


def paired_difference(ours: Tensor, theirs: Tensor, seed: int, resamples: int = 2000) -> Estimate:
    """Estimate the mean of (N,) `ours` minus the mean of (N,) `theirs`; images are resampled as pairs.

    Raises:
        EvaluationError: fewer than two images.
    """
    differences = ours.double() - theirs.double()
    counts = resample_counts(len(differences), resamples, seed)
    return estimate(differences.mean().item(), resampled_means(differences, counts))


@dataclass(frozen=True)
class Resampled:
    """Statistic of a set of images and of its resamples, which are the same at every measurement.

    Attributes:
        value: statistic of the full set.
        resamples: (R,) statistics of the resamples, in order.
    """

    value: float
    resamples: Tensor

    @property
    def estimate(self) -> Estimate:
        return estimate(self.value, self.resamples)

    def minus(self, other: Resampled) -> Estimate:
        """Subtract a statistic of the same resamples, paired: the effect of a draw on both statistics cancels."""
        return estimate(self.value - other.value, self.resamples - other.resamples)
