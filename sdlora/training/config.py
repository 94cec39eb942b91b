"""Training settings, as typed and as resolved."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from sdlora.core.config_base import MAX_BATCH, MAX_COUNT, MAX_LEARNING_RATE, MAX_SEED, MAX_STEPS, SettingsSection
from sdlora.core.refs import Precision

Preset = Literal["small", "standard", "thorough"]
OptimizerName = Literal["adamw", "adamw8bit", "prodigy", "schedule_free"]
KeepBy = Literal["loss", "kid"]
ScheduleName = Literal["cosine", "linear", "constant"]
Side = Annotated[int, Field(ge=8, le=8192)]


class TrainingConfig(SettingsSection):
    """Settings of one fine-tuning run.

    None means empty: `defaults.resolve_training` fills in a value that suits the base model and the preset.
    """

    preset: Preset = Field("standard", description="small, standard or thorough: how long to train")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="the same seed, inputs and settings give the same adapter")
    steps: int | None = Field(None, ge=1, le=MAX_STEPS, description="optimiser steps; empty: the preset's")
    batch_size: int | None = Field(
        None,
        ge=1,
        le=MAX_BATCH,
        description="images per step, over all processes; empty: 16, or 4 with large base models",
    )
    num_processes: int = Field(
        1, ge=1, le=1024, description="processes that share each step's images, one per GPU or CPU core of this machine"
    )
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        le=MAX_BATCH,
        description="images per pass through the network; empty: as many as fit into memory, found by trial",
    )
    gradient_checkpointing: bool = Field(False, description="compute activations twice instead of keeping them")
    resolutions: tuple[Side, ...] | None = Field(
        None,
        max_length=16,
        description="sides in pixels; several take turns for every image; empty: the side that the base was made for",
    )
    aspect_buckets: bool | None = Field(
        None,
        description="keep the images' proportions, in sizes of equal area; empty: yes, with bases beyond 128 px",
    )
    optimizer: OptimizerName = Field(
        "adamw",
        description="adamw; from their own packages adamw8bit (GPU only), prodigy (finds the rate), schedule_free",
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=MAX_LEARNING_RATE,
        description="peak rate at alpha = rank; empty: 2e-3 for the embedded base, 1e-4 for large ones; prodigy: 1",
    )
    text_encoder_learning_rate: float | None = Field(
        None,
        gt=0,
        le=MAX_LEARNING_RATE,
        description="peak rate of the text encoders, with lora.text_encoder_rank; empty: half of learning_rate",
    )
    schedule: ScheduleName | None = Field(
        None,
        description="the rate after warm-up: cosine or linear to zero, or constant; empty: what suits the optimizer",
    )
    warmup_steps: int | None = Field(
        None,
        ge=0,
        le=MAX_STEPS,
        description="steps until the peak rate; empty: a twentieth of the steps, none with prodigy",
    )
    weight_decay: float = Field(1e-2, ge=0, le=10, description="decoupled weight decay")
    max_grad_norm: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="the gradient's norm over all trained tensors is cut to this; empty: 1, or 0.1 for SD 3",
    )
    caption_dropout: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of images seen without caption, which guidance needs; empty: 0.1, or 0.05 for FLUX",
    )
    min_snr_gamma: float | None = Field(
        None,
        ge=0,
        le=1e6,
        description="cap of the min-SNR loss weights; 0: plain loss; empty: 5, or 0 for rectified flow",
    )
    noise_offset: float = Field(0.0, ge=0, le=10, description="extra noise on the mean, for very dark or bright images")
    horizontal_flip: bool = Field(False, description="mirror half of the images; not for text or one-sided things")
    masked_weight: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="weight in the loss of what an image's mask (name-masklabel.png, name.mask.png), else its alpha "
        "channel, leaves out; null: all parts count alike",
    )
    prior_weight: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="weight in the loss of images that the base itself draws of prior_prompts, so that it keeps what "
        "it knows of them; 1 is usual; null: none are drawn",
    )
    prior_prompts: tuple[str, ...] = Field(
        (), description="class prompts of those images, such as 'a photograph of a dog'; they take turns"
    )
    prior_images: int = Field(100, ge=1, le=MAX_COUNT, description="how many of them are drawn, once, over all prompts")
    prior_batch_size: int | None = Field(
        None, ge=1, le=MAX_BATCH, description="of them per step, added to batch_size images; empty: a quarter as many"
    )
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="keep a moving average of the adapter and save that; null: the last step's"
    )
    precision: Literal["auto"] | Precision = Field(
        "auto",
        description="the denoiser's arithmetic; auto: the faster of fp32 and bf16, measured; fp16 on GPUs without bf16",
    )
    validation_every_steps: int | None = Field(
        None,
        ge=1,
        le=MAX_STEPS,
        description="steps between two measurements on the held-out images; empty: the preset's",
    )
    keep: Literal["best", "last"] = Field(
        "best", description="which adapter is saved: the best one on the held-out images, or that of the last step"
    )
    validation_images: int | None = Field(
        None,
        ge=8,
        le=MAX_COUNT,
        description="held-out captions that are drawn at each measurement, for the KID of what the adapter draws; "
        "null: none, which is quicker",
    )
    keep_by: KeepBy = Field(
        "loss", description="by what the best adapter is known: the loss, or with validation_images their kid"
    )
    early_stop_patience: int | None = Field(
        None,
        ge=1,
        le=MAX_STEPS,
        description="stop after so many measurements that are surely worse than the best; null: never",
    )
    sample_every_steps: int | None = Field(
        None,
        ge=1,
        le=MAX_STEPS,
        description="steps between two rows of pictures drawn while training; null: none are drawn",
    )
    sample_prompts: tuple[str, ...] = Field(
        (), description="what those pictures show; empty: captions of four held-out images"
    )
    sample_inference_steps: int = Field(12, ge=1, le=1000, description="sampler steps of those pictures")
    log_every_steps: int = Field(
        10, ge=1, le=MAX_STEPS, description="steps whose mean is reported as one point of the curve"
    )
    checkpoint_every_seconds: float = Field(30.0, gt=0, le=1e6, description="longest time whose work a crash can cost")
    checkpoint_every_steps: int | None = Field(
        None, ge=1, le=MAX_STEPS, description="additionally, steps between checkpoints"
    )

    @field_validator("resolutions")
    @classmethod
    def _none_listed_is_empty(cls, resolutions: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return resolutions or None

    @model_validator(mode="after")
    def _prior_has_prompts(self) -> TrainingConfig:
        if self.prior_weight is not None and not self.prior_prompts:
            raise ValueError(
                f"prior_prompts: prior_weight {self.prior_weight:g} needs prompts of what the base is to keep, such as "
                "'a photograph of a dog'; found none. Give one or several, or leave prior_weight empty"
            )
        if self.prior_weight is None and self.prior_prompts:
            raise ValueError(
                f"prior_weight: {len(self.prior_prompts)} prior_prompts have no effect without it. Set it, 1 is usual, "
                "or leave prior_prompts empty"
            )
        return self

    @model_validator(mode="after")
    def _kid_has_images(self) -> TrainingConfig:
        if self.keep_by == "kid" and self.validation_images is None:
            raise ValueError(
                "keep_by: kid is measured on drawn images, and validation_images is null. Set it, such as to 32, or "
                "keep by loss"
            )
        return self

    @model_validator(mode="after")
    def _schedule_free_has_no_schedule(self) -> TrainingConfig:
        if self.optimizer != "schedule_free":
            return self
        if self.schedule not in (None, "constant"):
            raise ValueError(f"schedule: schedule_free replaces it, so it must be constant, not {self.schedule}")
        if self.ema_decay is not None:
            raise ValueError("ema_decay: schedule_free keeps an average of its own, so it must be null")
        return self


class ResolvedTraining(TrainingConfig):
    """Settings of one fine-tuning run with every empty one filled; the trainer accepts only these."""

    steps: int
    batch_size: int
    resolutions: tuple[int, ...]
    aspect_buckets: bool
    learning_rate: float
    text_encoder_learning_rate: float
    schedule: ScheduleName
    warmup_steps: int
    max_grad_norm: float
    caption_dropout: float
    min_snr_gamma: float
    prior_batch_size: int
    precision: Precision
    validation_every_steps: int

    @property
    def images_per_step(self) -> int:
        """Images per step over all processes, prior images included."""
        return self.batch_size + (self.prior_batch_size if self.prior_weight is not None else 0)
