from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st

from sdlora.diffusion.schedule import add_noise, alphas_cumprod, draw_noise, draw_timesteps, signal_to_noise_ratio

# Worked by hand; see tests/golden/README.md.


@pytest.mark.parametrize(
    ("schedule", "start", "end", "expected"),
    [("linear", 0.1, 0.2, [0.9, 0.72]), ("scaled_linear", 0.04, 0.16, [0.96, 0.8736, 0.733824])],
)
def test_remaining_signal_matches_hand_worked_products(schedule, start, end, expected):
    assert alphas_cumprod(start, end, len(expected), schedule).tolist() == pytest.approx(expected)


def test_stable_diffusions_schedule_equals_the_one_of_diffusers():
    theirs = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
    torch.testing.assert_close(alphas_cumprod(0.00085, 0.012, 1000), theirs)


def test_signal_to_noise_ratio_matches_hand_worked_values():
    assert signal_to_noise_ratio(torch.tensor([0.9, 0.5, 0.0])).tolist() == pytest.approx([9.0, 1.0, 0.0])


def test_noise_is_mixed_in_by_amplitude_not_by_power():
    latents, noise = torch.full((2, 1, 1, 1), 2.0), torch.ones(2, 1, 1, 1)
    mixed = add_noise(latents, noise, torch.tensor([0.64, 1.0]))
    assert mixed.flatten().tolist() == pytest.approx([2.2, 2.0])


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.1), (0.2, 0.1), (0.1, 1.0)])
def test_impossible_betas_are_refused_with_their_values(start, end):
    with pytest.raises(ValueError, match=str(end)):
        alphas_cumprod(start, end, 10)


@given(batch=st.integers(1, 64), total=st.integers(1, 1000), seed=st.integers(0, 2**31))
def test_every_batch_covers_all_noise_levels_evenly(batch, total, seed):
    timesteps = draw_timesteps(batch, total, torch.Generator().manual_seed(seed))
    strata = torch.arange(batch) * total / batch
    assert (timesteps >= strata.floor()).all()
    assert (timesteps <= strata + total / batch).all()
    assert timesteps.max() < total


def test_timesteps_differ_from_draw_to_draw():
    generator = torch.Generator().manual_seed(0)
    assert not torch.equal(draw_timesteps(8, 1000, generator), draw_timesteps(8, 1000, generator))


def test_noise_offset_moves_each_channel_as_a_whole():
    plain = draw_noise((2, 3, 8, 8), torch.Generator().manual_seed(0))
    moved = draw_noise((2, 3, 8, 8), torch.Generator().manual_seed(0), offset=0.5)
    shift = (moved - plain).flatten(2)
    torch.testing.assert_close(shift, shift[:, :, :1].expand_as(shift))
    assert shift[:, :, 0].unique().numel() == 6
