from __future__ import annotations

import pytest
import torch

from sdlora.core.errors import EvaluationError
from sdlora.statistics.bootstrap import estimate, resample_counts, resampled_means


def test_every_resample_draws_as_many_images_as_there_are() -> None:
    counts = resample_counts(12, 300, seed=0)
    assert counts.shape == (300, 12)
    assert counts.sum(1).eq(12).all()
    assert counts.unique(dim=0).shape[0] > 290  # and not the same draw over and over


def test_resamples_depend_on_the_seed_and_not_on_the_global_generator() -> None:
    torch.manual_seed(1)
    first = resample_counts(8, 100, seed=5)
    state = torch.random.get_rng_state()
    assert torch.equal(resample_counts(8, 100, seed=5), first)
    assert not torch.equal(resample_counts(8, 100, seed=6), first)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_one_image_has_no_interval() -> None:
    with pytest.raises(EvaluationError, match="at least 2 images, got 1"):
        resample_counts(1, 100, seed=0)


def test_the_interval_of_a_mean_has_the_width_that_theory_gives_it() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = values.mean().item()
    found = estimate(mean, resampled_means(values, resample_counts(400, 4000, seed=0)))
    standard_error = values.std().item() / 20
    assert found.value == mean
    assert found.low == pytest.approx(mean - 1.96 * standard_error, abs=0.15 * standard_error)
    assert found.high == pytest.approx(mean + 1.96 * standard_error, abs=0.15 * standard_error)


def test_centred_intervals_lie_around_the_value() -> None:
    resampled = torch.linspace(10, 12, 1001)
    found = estimate(3.0, resampled, centre=True)
    assert (found.low, found.high) == (pytest.approx(2.05), pytest.approx(3.95))
