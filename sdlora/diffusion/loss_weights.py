"""Weights of the training loss per timestep."""

from __future__ import annotations

from torch import Tensor

from sdlora.diffusion.targets import PredictionType


def min_snr_weights(snr: Tensor, gamma: float, prediction_type: PredictionType) -> Tensor:
    """Compute loss weights that keep nearly clean timesteps from dominating training.

    For every prediction type the weight equals min(snr, gamma) on the loss of x_0.

    Args:
        snr: (B,) signal-to-noise power ratio alpha_bar / (1 - alpha_bar), not in dB, in [0, inf].
        gamma: cap on the SNR, > 0; the paper recommends 5.
        prediction_type: what the network outputs.
    Returns:
        (B,) weights: in [0, 1] for "epsilon" and "v_prediction", in [0, gamma] for "sample".
    Raises:
        ValueError: gamma is not positive.
    Source: Hang et al. 2023, arXiv:2303.09556 (Min-SNR-gamma).
    """
    if gamma <= 0:
        raise ValueError(f"gamma caps the SNR and must be > 0, got {gamma}.")
    if prediction_type == "epsilon":
        # gamma / snr, not min(snr, gamma) / snr: equal after the clamp, without 0/0 at zero terminal SNR.
        return (gamma / snr).clamp(max=1.0)
    if prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    return snr.clamp(max=gamma)
