"""Settings of the duel and of the gate that reads it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from sdlora.core.config_base import MAX_BATCH, MAX_COUNT, MAX_GUIDANCE_SCALE, MAX_SEED, SettingsSection
from sdlora.records.metrics import METRICS


class EvaluationConfig(SettingsSection):
    """Settings of the scoring; all contestants get the same prompts, seeds and held-out images."""

    max_prompts: int = Field(
        128, ge=2, le=MAX_COUNT, description="held-out images at most; chosen by hash, so the choice is stable"
    )
    min_prompts: int = Field(4, ge=2, le=MAX_COUNT, description="fewer held-out images than this are refused")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="with an image's digest, decides its noise")
    batch_size: int = Field(16, ge=1, le=MAX_BATCH)
    sampler: Literal["ddim", "dpm++"] = "ddim"
    steps: int = Field(20, ge=1, le=1000, description="sampler steps per generated image")
    guidance_scale: float = Field(3.5, ge=1, le=MAX_GUIDANCE_SCALE)
    negative_prompt: str = ""
    denoising_fraction: float = Field(0.5, gt=0, lt=1, description="how far held-out images are turned to noise")
    denoising_steps: int = Field(5, ge=1, le=1000, description="sampler steps that restore them")
    resamples: int = Field(1000, ge=100, le=1_000_000, description="bootstrap resamples behind every interval")
    fid_resamples: int = Field(
        200, ge=100, le=1_000_000, description="fewer for FID, whose resample costs a matrix root"
    )
    copy_similarity: float = Field(0.95, gt=0, le=1, description="feature cosine from which a sample is nearly a copy")
    shown_prompts: int = Field(12, ge=1, le=64, description="rows of the image grids")

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        if self.min_prompts > self.max_prompts:
            raise ValueError(f"min_prompts {self.min_prompts} is above max_prompts {self.max_prompts}.")
        return self


class GateConfig(SettingsSection):
    """Conditions under which a candidate becomes the champion; `None` switches a limit off."""

    mode: Literal["automatic", "ask", "manual"] = Field(
        "automatic",
        description="who decides: the gate (automatic), a person where the gate cannot tell (ask), always a person "
        "(manual)",
    )
    rule: Literal["better", "not_worse"] = Field(
        "not_worse", description="what KID must show against the champion; see sdlora.evaluation.gate"
    )
    min_improvement: float = Field(0.0, ge=0, le=1e6, description="KID by which the base must be beaten, beyond doubt")
    max_lost_gain: float = Field(
        0.2, ge=0, lt=1, description="not_worse: share of the champion's KID gain over the base that doubt may cost"
    )
    max_denoising_psnr_drop_db: float | None = Field(0.5, ge=0, le=1e6)
    max_denoising_ssim_drop: float | None = Field(0.02, ge=0, le=2)
    max_time_factor: float | None = Field(2.0, gt=0, le=1e6, description="time per image over the bare base model's")
    max_excess_copies: float | None = Field(
        0.05, ge=0, le=1, description="share of near copies of training images beyond that of real held-out images"
    )
    required_metrics: tuple[str, ...] = Field(
        ("kid", "fid", "reconstruction_psnr", "reconstruction_ssim"),
        description="must be measured for every contestant, as must the metrics that a limit reads",
    )

    @model_validator(mode="after")
    def _metrics_exist(self) -> Self:
        unknown = sorted(set(self.required_metrics) - METRICS.keys())
        if unknown:
            raise ValueError(f"required_metrics: {unknown} are not metrics. Known: {sorted(METRICS)}.")
        return self
