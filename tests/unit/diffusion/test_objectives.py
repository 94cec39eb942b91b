from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_loss_weighting_for_sd3

from sdlora.diffusion.objectives import DenoisingObjective, FlowObjective


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flows_levels_and_timesteps_are_those_of_the_schedulers_of_diffusers(shift):
    flow = FlowObjective.shifted(1000, shift)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    torch.testing.assert_close(flow.sigmas, scheduler.sigmas.flip(0))  # theirs fall
    timesteps = torch.tensor([0, 10, 500, 999])
    torch.testing.assert_close(flow.network_timesteps(timesteps), scheduler.timesteps.flip(0)[timesteps])
    latents, noise = torch.randn(2, 4, 3, 2, 2)
    expected = scheduler.scale_noise(latents, flow.network_timesteps(timesteps), noise)
    torch.testing.assert_close(flow.add_noise(latents, noise, timesteps), expected)


def test_following_a_flows_target_leads_from_noise_to_the_latents():
    flow = FlowObjective.shifted(1000, 3.0)
    latents, noise = torch.randn(2, 1, 3, 2, 2)
    timesteps = torch.tensor([700])
    noisy = flow.add_noise(latents, noise, timesteps)
    velocity = flow.target(latents, noise, timesteps)
    torch.testing.assert_close(noisy - flow.sigmas[700] * velocity, latents)


@pytest.mark.parametrize("weighting", ["none", "sigma_sqrt", "cosmap"])
def test_a_flows_loss_weights_are_those_of_diffusers(weighting):
    flow = FlowObjective(FlowObjective.shifted(1000, 3.0).sigmas, weighting=weighting)
    expected = compute_loss_weighting_for_sd3(weighting, flow.sigmas)
    torch.testing.assert_close(flow.loss_weights(None), expected)
    assert torch.equal(flow.loss_weights(5.0), flow.loss_weights(None))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 0.7)])
def test_a_flow_is_visited_with_logit_normal_density(mean, std):
    flow = FlowObjective(FlowObjective.shifted(1000, 1.0).sigmas, logit_mean=mean, logit_std=std)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([flow.draw_timesteps(16, generator) for _ in range(500)])
    assert drawn.min() >= 0
    assert drawn.max() <= 999
    normal = torch.distributions.Normal(mean, std)
    for level in (0.1, 0.3, 0.5, 0.7, 0.9):
        below = normal.cdf(torch.tensor(level / (1 - level)).log()).item()
        assert (drawn < level * 1000).float().mean().item() == pytest.approx(below, abs=0.01)


def test_each_batch_of_a_flow_covers_all_strata():
    flow = FlowObjective.shifted(1000, 1.0)
    drawn = torch.stack([flow.draw_timesteps(4, torch.Generator().manual_seed(seed)) for seed in range(50)])
    # Quartiles of the logistic normal: sigmoid(-0.6745), 1/2, sigmoid(0.6745).
    edges = torch.tensor([0.0, 0.3375, 0.5, 0.6625, 1.0]) * 1000
    for stratum in range(4):
        assert (drawn[:, stratum] >= edges[stratum] - 1).all()
        assert (drawn[:, stratum] <= edges[stratum + 1] + 1).all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_zero_terminal_snr_has_finite_weights_and_targets(prediction):
    scheduler = DDIMScheduler(rescale_betas_zero_snr=True, prediction_type=prediction)
    objective = DenoisingObjective(scheduler.alphas_cumprod, prediction)
    assert objective.alphas_cumprod[-1] < 1e-6  # the last level is noise alone
    weights = objective.loss_weights(5.0)
    assert weights.isfinite().all()
    assert (weights >= 0).all()
    latents, noise = torch.randn(2, 1, 3, 2, 2)
    last = torch.tensor([999])
    torch.testing.assert_close(objective.add_noise(latents, noise, last), noise, atol=1e-3, rtol=1e-3)
    if prediction == "v_prediction":  # of pure noise, what is to be learnt is the image itself
        torch.testing.assert_close(objective.target(latents, noise, last), -latents, atol=1e-3, rtol=1e-3)
