from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn

from sdlora.diffusion.objectives import DenoisingObjective
from sdlora.diffusion.schedule import add_noise
from sdlora.diffusion.targets import training_target
from sdlora.models import parts
from sdlora.models.families import family_of
from sdlora.training.inputs.batches import Batch
from sdlora.training.inputs.encoded import Encoding, encode_rows
from sdlora.training.judging.validation import FixedNoiseValidation
from sdlora.training.learning.loss import DenoisingLoss
from tests.unit.training.setting import as_snapshot

CPU = torch.device("cpu")


class Oracle(nn.Module):
    """Predicts what it was told, and notes what it was shown."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, noisy, timesteps, encoder_hidden_states, return_dict):
        self.noisy = noisy
        return (self.answer,)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=generator)
    return Batch(latents, noise, torch.tensor([0, 500, 999]), {"encoder_hidden_states": torch.zeros(3, 5, 6)})


def loss_of(base, kind, min_snr_gamma=None):
    """The loss with the usual noise schedule and another prediction than the base's."""
    objective = DenoisingObjective(DDIMScheduler().alphas_cumprod, kind)
    return DenoisingLoss(family_of(base.folder), objective, objective.loss_weights(min_snr_gamma), "fp32")


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_costs_nothing_and_one_off_by_two_costs_four(kind, base, batch):
    loss = loss_of(base, kind)
    levels = loss.objective.alphas_cumprod[batch.timesteps]
    target = training_target(batch.latents, batch.noise, levels, kind)
    oracle = Oracle(target)
    assert loss.weighted(oracle, batch).item() == 0
    torch.testing.assert_close(oracle.noisy, add_noise(batch.latents, batch.noise, levels))
    torch.testing.assert_close(loss.per_image(Oracle(target + 2), batch), torch.full((3,), 4.0))
    assert loss.weighted(Oracle(target + 2), batch).item() == pytest.approx(4.0)


def test_min_snr_weighs_each_image_by_its_timestep(base, batch):
    loss = loss_of(base, "epsilon", 5.0)
    levels = loss.objective.alphas_cumprod[batch.timesteps]
    weights = [min(1.0, 5.0 / (level / (1 - level))) for level in levels.tolist()]
    assert loss.weighted(Oracle(batch.noise + 1), batch).item() == pytest.approx(sum(weights) / 3, rel=1e-4)
    assert weights[0] < 0.01  # nearly clean latents would otherwise weigh as much as pure noise
    assert weights[2] == 1.0


def test_validation_repeats_itself_and_notices_a_change(base, store, snapshot):
    loss = DenoisingLoss.of_base(base, 5.0, "fp32", CPU)
    encoded = encode_rows(base, snapshot.held_out, store, Encoding((64,)), device=CPU)
    denoiser = parts.load_denoiser(base)

    def errors(seed=0, batch_size=4):
        return FixedNoiseValidation(encoded, loss, seed, batch_size, CPU).measure(denoiser).tolist()

    first = errors()
    assert len(first) == len(snapshot.held_out)
    assert errors() == first
    assert errors(batch_size=3) == pytest.approx(first, rel=1e-4)
    assert errors(seed=1) != pytest.approx(first, rel=1e-4)
    with torch.no_grad():
        denoiser.conv_out.bias.add_(0.5)
    assert errors() != pytest.approx(first, rel=1e-3)


def test_an_images_validation_noise_does_not_depend_on_the_other_images(base, store, snapshot):
    loss = DenoisingLoss.of_base(base, 5.0, "fp32", CPU)
    denoiser = parts.load_denoiser(base)

    def errors(rows):
        validation = FixedNoiseValidation(encode_rows(base, rows, store, Encoding((64,)), device=CPU), loss, 0, 4, CPU)
        return torch.cat([loss.per_image(denoiser, batch) for batch in validation.batches]).view(len(rows), -1)

    rows = as_snapshot(list(snapshot.held_out)).rows
    with torch.no_grad():
        torch.testing.assert_close(errors(rows)[1:], errors(rows[1:]), atol=1e-5, rtol=1e-4)
