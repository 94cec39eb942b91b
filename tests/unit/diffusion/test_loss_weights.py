from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdlora.diffusion.loss_weights import min_snr_weights


# Worked by hand with gamma = 5; see tests/golden/README.md.
@pytest.mark.parametrize(
    ("snr", "kind", "expected"),
    [
        (9.0, "epsilon", 5 / 9),
        (9.0, "v_prediction", 0.5),
        (9.0, "sample", 5.0),
        (5.0, "epsilon", 1.0),
        (5.0, "v_prediction", 5 / 6),
        (1.0, "epsilon", 1.0),
        (1.0, "v_prediction", 0.5),
        (1.0, "sample", 1.0),
        (0.0, "epsilon", 1.0),
        (0.0, "v_prediction", 0.0),
        (0.0, "sample", 0.0),
    ],
)
def test_min_snr_weights_match_hand_worked_values(snr, kind, expected):
    assert min_snr_weights(torch.tensor([snr]), 5.0, kind).item() == pytest.approx(expected)


@given(snr=st.floats(1e-6, 1e6), gamma=st.floats(0.1, 50))
def test_all_prediction_types_weigh_the_loss_of_the_clean_latents_alike(snr, gamma):
    value = torch.tensor([snr], dtype=torch.float64)
    on_latents = min_snr_weights(value, gamma, "sample")
    torch.testing.assert_close(min_snr_weights(value, gamma, "epsilon") * value, on_latents)
    torch.testing.assert_close(min_snr_weights(value, gamma, "v_prediction") * (value + 1), on_latents)


@pytest.mark.parametrize("gamma", [0.0, -1.0])
def test_a_gamma_that_is_not_positive_is_refused(gamma):
    with pytest.raises(ValueError, match=f"{gamma}"):
        min_snr_weights(torch.ones(1), gamma, "epsilon")
