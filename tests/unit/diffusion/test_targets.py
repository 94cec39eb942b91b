from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdlora.diffusion.schedule import add_noise
from sdlora.diffusion.targets import PREDICTION_TYPES, training_target


# Worked by hand; see tests/golden/README.md.
@pytest.mark.parametrize(("kind", "expected"), [("epsilon", 1.0), ("v_prediction", -0.4), ("sample", 2.0)])
def test_targets_match_hand_worked_values(kind, expected):
    latents, noise = torch.full((1, 1, 1, 1), 2.0), torch.ones(1, 1, 1, 1)
    assert training_target(latents, noise, torch.tensor([0.64]), kind).item() == pytest.approx(expected)


def implied_latents(prediction, noisy, level, kind):
    """The clean latents that a prediction stands for, by the equations of Salimans & Ho 2022, appendix D."""
    match kind:
        case "epsilon":
            return (noisy - (1 - level) ** 0.5 * prediction) / level**0.5
        case "v_prediction":
            return level**0.5 * noisy - (1 - level) ** 0.5 * prediction
        case "sample":
            return prediction


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@settings(deadline=None)  # the first call of a process loads kernels
@given(level=st.floats(0.05, 0.95), seed=st.integers(0, 2**31))
def test_a_perfect_prediction_gives_the_clean_latents_back(kind, level, seed):
    generator = torch.Generator().manual_seed(seed)
    latents, noise = torch.randn(2, 3, 4, 4, 4, generator=generator)[0], torch.randn(3, 4, 4, 4, generator=generator)
    levels = torch.full((3,), level)
    target = training_target(latents, noise, levels, kind)
    noisy = add_noise(latents, noise, levels)
    torch.testing.assert_close(
        implied_latents(target, noisy, levels.view(3, 1, 1, 1), kind), latents, atol=1e-4, rtol=1e-4
    )


def test_an_unknown_prediction_type_is_refused_by_name():
    one = torch.ones(1, 1, 1, 1)
    with pytest.raises(ValueError, match="'velocity'"):
        training_target(one, one, torch.tensor([0.5]), "velocity")
