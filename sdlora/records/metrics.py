"""Metrics of adapters: their meaning and format, and a measured value with its interval."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from sdlora.core.config_base import FrozenConfig


class Estimate(FrozenConfig):
    """Measured value with its 95 % interval; `low` equals `high` without a measured interval."""

    model_config = ConfigDict(ser_json_inf_nan="constants")  # a NaN stays visible and fails the gate

    value: float
    low: float
    high: float


class Metric(FrozenConfig):
    """Metric of a duel: its meaning, better direction and format."""

    label: str
    better: Literal["lower", "higher"]
    meaning: str
    decimals: int = 3
    unit: str = ""

    @property
    def arrow(self) -> str:
        """Arrow towards better values."""
        return "↓" if self.better == "lower" else "↑"

    def number(self, value: float, sign: Literal["", "+"] = "") -> str:
        """Format the digits of a value, without the unit."""
        return f"{value:{sign}.{self.decimals}f}"

    def with_unit(self, number: str) -> str:
        return f"{number} {self.unit}" if self.unit else number

    def format(self, estimate: Estimate | None, *, unit: bool = True) -> str:
        """Format as `22.10 dB [21.80, 22.40]`; without an interval only the value, without an estimate "missing"."""
        if estimate is None:
            return "missing"
        value = self.number(estimate.value)
        text = self.with_unit(value) if unit else value
        if estimate.low == estimate.high:
            return text
        return f"{text} [{self.number(estimate.low)}, {self.number(estimate.high)}]"


METRICS: dict[str, Metric] = {
    "kid": Metric(
        label="KID",
        better="lower",
        decimals=4,
        meaning="Kernel distance between generated and real held-out images; hardly depends on how many there are.",
    ),
    "fid": Metric(
        label="FID",
        better="lower",
        decimals=1,
        meaning="Fréchet distance. Biased upwards at few images: compare only within this table.",
    ),
    "subject_top10": Metric(
        label="Subject found",
        better="higher",
        meaning="Share of samples with a real image of the same caption among their 10 nearest real images.",
    ),
    "denoising_psnr": Metric(
        label="Denoising PSNR",
        better="higher",
        decimals=2,
        unit="dB",
        meaning="Held-out images, half turned to noise and restored with their caption, against the originals.",
    ),
    "denoising_ssim": Metric(
        label="Denoising SSIM", better="higher", meaning="The same restored images, by structural similarity."
    ),
    "reconstruction_psnr": Metric(
        label="Autoencoder PSNR",
        better="higher",
        decimals=2,
        unit="dB",
        meaning="Held-out images through the base model's autoencoder and back: the ceiling for every contestant.",
    ),
    "reconstruction_ssim": Metric(
        label="Autoencoder SSIM", better="higher", meaning="The same reconstructions, by structural similarity."
    ),
    "copied_share": Metric(
        label="Near copies",
        better="lower",
        meaning="Share of samples that are nearly a training image. Real held-out images have a share, too: see below.",
    ),
    "excess_copies": Metric(
        label="Near copies beyond real",
        better="lower",
        meaning="Near copies minus the share among real held-out images, which no model has seen.",
    ),
    "seconds_per_image": Metric(
        label="Time per image",
        better="lower",
        unit="s",
        meaning="Median over batches, measured while drawing the samples.",
    ),
    "seconds_per_image_p95": Metric(
        label="Time per image, 95th percentile", better="lower", unit="s", meaning="The slow end of the same batches."
    ),
}
