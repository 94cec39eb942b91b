from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from sdlora.statistics.bootstrap import estimate, resample_counts
from sdlora.statistics.distances import (
    fid,
    kid,
    linear_kernels,
    polynomial_kernels,
    resampled_fid,
    resampled_kid,
)

IMAGES, DIM = 24, 40


class Flatten(nn.Module):
    """A feature network that torchmetrics calls on images: (B, 1, 5, 8) -> (B, 40)."""

    num_features = DIM

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


@pytest.fixture
def sets() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(IMAGES, DIM, generator=generator) ** 3
    return real, 0.5 * real + torch.rand(IMAGES, DIM, generator=generator)


def everyone_once() -> Tensor:
    return torch.ones(1, IMAGES, dtype=torch.float64)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save")
def test_kid_and_its_resampled_form_are_the_one_of_torchmetrics(sets: tuple[Tensor, Tensor]) -> None:
    metric = KernelInceptionDistance(Flatten(), subsets=3, subset_size=IMAGES)
    metric.update(sets[0].view(-1, 1, 5, 8), real=True)
    metric.update(sets[1].view(-1, 1, 5, 8), real=False)
    expected = metric.compute()[0].item()
    assert expected > 0.01
    assert kid(*sets) == pytest.approx(expected, rel=1e-4)
    assert resampled_kid(polynomial_kernels(*sets), everyone_once()).item() == pytest.approx(expected, rel=1e-4)


def test_fid_and_its_resampled_form_are_the_one_of_torchmetrics(sets: tuple[Tensor, Tensor]) -> None:
    metric = FrechetInceptionDistance(Flatten())
    metric.update(sets[0].view(-1, 1, 5, 8), real=True)
    metric.update(sets[1].view(-1, 1, 5, 8), real=False)
    expected = metric.compute().item()
    assert expected > 0.1
    assert fid(*sets) == pytest.approx(expected, rel=1e-4)
    assert resampled_fid(linear_kernels(*sets), everyone_once()).item() == pytest.approx(expected, rel=1e-4)


def test_resampled_fid_is_the_fid_of_the_drawn_images(sets: tuple[Tensor, Tensor]) -> None:
    counts = resample_counts(IMAGES, 100, seed=3)[:1]
    drawn = torch.repeat_interleave(torch.arange(IMAGES), counts[0].long())
    expected = fid(sets[0][drawn], sets[1][drawn])
    assert resampled_fid(linear_kernels(*sets), counts).item() == pytest.approx(expected, rel=1e-3)


def test_kid_does_not_depend_on_the_global_generator(sets: tuple[Tensor, Tensor]) -> None:
    values = set()
    for seed in range(8):
        torch.manual_seed(seed)
        values.add(kid(*sets))
    assert len(values) == 1


def test_kid_leaves_the_global_generator_untouched(sets: tuple[Tensor, Tensor]) -> None:
    state = torch.random.get_rng_state()
    kid(*sets)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_resamples_of_kid_are_not_pulled_up_by_images_drawn_twice(sets: tuple[Tensor, Tensor]) -> None:
    kernels, counts = polynomial_kernels(*sets), resample_counts(IMAGES, 4000, seed=0)
    value = resampled_kid(kernels, everyone_once()).item()
    assert resampled_kid(kernels, counts).mean().item() == pytest.approx(value, rel=0.02)


def test_intervals_of_kid_cover_the_true_difference_about_95_times_in_100() -> None:
    generator = torch.Generator().manual_seed(0)

    def world() -> tuple[Tensor, Tensor, Tensor]:
        """Real images, and two models that draw the same subjects: one far off in style, one near."""
        subjects = torch.randn(32, 16, generator=generator)
        styles = (0.0, 0.5, 0.3)
        return tuple(subjects + 0.5 * torch.randn(32, 16, generator=generator) + style for style in styles)

    def resampled_difference(counts: Tensor) -> Tensor:
        return resampled_kid(polynomial_kernels(real, near), counts) - resampled_kid(
            polynomial_kernels(real, far), counts
        )

    once, differences, estimates = torch.ones(1, 32, dtype=torch.float64), [], []
    for trial in range(200):
        real, far, near = world()
        value = resampled_difference(once).item()
        differences.append(value)
        estimates.append(estimate(value, resampled_difference(resample_counts(32, 200, seed=trial))))
    truth = sum(differences) / len(differences)
    covered = sum(found.low <= truth <= found.high for found in estimates)
    assert truth < 0
    assert 180 <= covered <= 199
