from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdlora.core.errors import EvaluationError
from sdlora.evaluation.fidelity import psnr_per_image, reconstruct, renoise_and_denoise, ssim_per_image
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.models.stable_diffusion import StableDiffusion
from tests.tiny import tiny_base_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusion:
    folder: Path = tiny_base_model(tmp_path_factory.mktemp("base"))
    ref = load_base_model(BaseModelConfig(source=str(folder)), tmp_path_factory.mktemp("home"))
    return StableDiffusion.from_ref(ref, device="cpu")


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_psnr_is_the_hand_worked_one_for_each_image(images: Tensor) -> None:
    grey = torch.full((2, 3, 64, 64), 100, dtype=torch.uint8)
    off = torch.stack([grey[0] + 1, grey[1] + 10])
    # 10 log10(255^2 / 1) and 10 log10(255^2 / 100)
    assert psnr_per_image(off, grey).tolist() == pytest.approx([48.1308, 28.1308], abs=1e-3)


def test_an_exact_copy_has_a_finite_psnr_and_full_similarity(images: Tensor) -> None:
    assert psnr_per_image(images, images).tolist() == [60.0] * 3
    assert ssim_per_image(images, images).tolist() == pytest.approx([1.0] * 3)
    assert ssim_per_image(images[:1], images[:1]).shape == (1,)


def test_ssim_falls_with_noise_on_the_image_that_has_it(images: Tensor) -> None:
    changed = images.clone()
    changed[1] = 255 - changed[1]
    first, second, third = ssim_per_image(changed, images).tolist()
    assert first == third == pytest.approx(1.0)
    assert second < 0.5


def test_ssim_is_the_published_one(images: Tensor) -> None:
    changed = (images.int() + torch.randint(-60, 60, images.shape, generator=torch.Generator().manual_seed(1))).clamp(
        0, 255
    )
    for index, found in enumerate(ssim_per_image(changed.to(torch.uint8), images).tolist()):
        assert found == pytest.approx(_wang(changed[index].double(), images[index].double()), abs=1e-9)


def _wang(image: Tensor, reference: Tensor) -> float:
    """Wang et al. 2004, equations 13 to 17, one window after another: (3, H, W) twice -> the mean similarity."""
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    line = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = torch.outer(line, line) / torch.outer(line, line).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarities = []
    for x, y in zip(image, reference, strict=True):
        x, y = (plane.unfold(0, 11, 1).unfold(1, 11, 1) for plane in (x, y))
        mean_x, mean_y = (x * window).sum((-2, -1)), (y * window).sum((-2, -1))
        variance_x = (window * (x - mean_x[..., None, None]) ** 2).sum((-2, -1))
        variance_y = (window * (y - mean_y[..., None, None]) ** 2).sum((-2, -1))
        covariance = (window * (x - mean_x[..., None, None]) * (y - mean_y[..., None, None])).sum((-2, -1))
        similarities.append(
            ((2 * mean_x * mean_y + c1) * (2 * covariance + c2))
            / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))
        )
    return torch.stack(similarities).mean().item()


def test_an_image_without_room_for_a_window_is_refused() -> None:
    small = torch.zeros(1, 3, 10, 64, dtype=torch.uint8)
    with pytest.raises(EvaluationError, match="11 px or more a side, got 64 x 10"):
        ssim_per_image(small, small)


def test_reconstruction_keeps_shape_and_is_not_the_input(model: StableDiffusion, images: Tensor) -> None:
    found = reconstruct(model, images)
    assert (found.shape, found.dtype) == (images.shape, torch.uint8)
    assert not torch.equal(found, images)


def test_a_restored_image_depends_on_its_own_seed_caption_and_fraction(model: StableDiffusion, images: Tensor) -> None:
    captions, seeds = ["a red circle", "a blue square", "a green bar"], [1, 2, 3]
    restored = renoise_and_denoise(model, images, captions, seeds, 0.5, 2)
    assert (restored.shape, restored.dtype) == (images.shape, torch.uint8)
    assert torch.equal(renoise_and_denoise(model, images, captions, seeds, 0.5, 2), restored)
    other_noise = renoise_and_denoise(model, images, captions, [1, 9, 3], 0.5, 2)
    # uint8 rounding may differ by one grey level between batches of other content
    assert (other_noise[0].int() - restored[0].int()).abs().max() <= 1
    assert (other_noise[1].int() - restored[1].int()).abs().max() > 1


def test_less_noise_leaves_an_image_nearer_to_its_reconstruction(model: StableDiffusion, images: Tensor) -> None:
    target = reconstruct(model, images).float()
    errors = [
        (renoise_and_denoise(model, images, ["a"] * 3, [1, 2, 3], fraction, 2).float() - target).square().mean().item()
        for fraction in (0.05, 0.9)
    ]
    assert errors[0] < errors[1]
