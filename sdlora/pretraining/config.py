"""Settings of pretraining. The defaults are the recipe of the embedded base model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sdlora.core.config_base import (
    MAX_BATCH,
    MAX_LEARNING_RATE,
    MAX_NAME_CHARS,
    MAX_SEED,
    MAX_STEPS,
    NAME_PATTERN,
    SettingsSection,
)
from sdlora.data.config import DataConfig

Channels = Annotated[int, Field(ge=1, le=65_536)]


class StageConfig(SettingsSection):
    """Length, batch size and learning rate of one training stage."""

    steps: int = Field(ge=1, le=MAX_STEPS, description="optimiser steps")
    batch_size: int = Field(ge=1, le=MAX_BATCH, description="images per step, over all processes")
    learning_rate: float = Field(
        gt=0, le=MAX_LEARNING_RATE, description="peak rate of AdamW; warm-up, then cosine to zero"
    )
    warmup_steps: int = Field(100, ge=0, le=MAX_STEPS)
    checkpoint_every_steps: int = Field(250, ge=1, le=MAX_STEPS)


class AutoencoderConfig(StageConfig):
    """Variational autoencoder with latents of 1/4 the side and 4 channels."""

    steps: int = Field(1800, ge=1, le=MAX_STEPS)
    batch_size: int = Field(16, ge=1, le=MAX_BATCH)
    learning_rate: float = Field(1e-3, gt=0, le=MAX_LEARNING_RATE)
    block_out_channels: tuple[Channels, ...] = Field((32, 64, 128), min_length=1, max_length=16)
    latent_channels: int = Field(4, ge=1, le=256)
    perceptual_weight: float = Field(0.08, ge=0, le=1e6, description="weight of the feature distance; L1 has weight 1")
    kl_weight: float = Field(2e-4, ge=0, le=1e6)


class DecoderConfig(StageConfig):
    """Adversarial training of the decoder; the encoder and thus the latents stay unchanged."""

    steps: int = Field(300, ge=1, le=MAX_STEPS)
    batch_size: int = Field(16, ge=1, le=MAX_BATCH)
    learning_rate: float = Field(2e-4, gt=0, le=MAX_LEARNING_RATE)
    perceptual_weight: float = Field(0.1, ge=0, le=1e6)
    adversarial_weight: float = Field(0.05, ge=0, le=1e6, description="weight of the patch discriminator's hinge loss")


class TextEncoderConfig(StageConfig):
    """Contrastive pretraining of the text encoder, by CLIP's loss between captions and images."""

    steps: int = Field(400, ge=1, le=MAX_STEPS)
    batch_size: int = Field(128, ge=2, le=MAX_BATCH)
    learning_rate: float = Field(1e-3, gt=0, le=MAX_LEARNING_RATE)
    vocabulary_size: int = Field(3000, ge=300, le=1_000_000)
    max_tokens: int = Field(32, ge=8, le=8192)
    hidden_size: int = Field(192, ge=8, le=65_536)
    layers: int = Field(4, ge=1, le=256)
    heads: int = Field(4, ge=1, le=1024)


class UNetConfig(StageConfig):
    """Denoiser, trained together with the text encoder."""

    steps: int = Field(3600, ge=1, le=MAX_STEPS)
    batch_size: int = Field(48, ge=1, le=MAX_BATCH)
    learning_rate: float = Field(8e-4, gt=0, le=MAX_LEARNING_RATE)
    warmup_steps: int = Field(200, ge=0, le=MAX_STEPS)
    flat_fraction: float = Field(0.3, ge=0, le=1, description="share of the steps at the peak rate before cosine")
    block_out_channels: tuple[Channels, ...] = Field((64, 128, 192), min_length=1, max_length=16)
    attention: tuple[bool, ...] = Field((False, True, True), min_length=1, max_length=16)
    layers_per_block: int = Field(1, ge=1, le=64)
    heads: int = Field(4, ge=1, le=1024)
    caption_dropout: float = Field(0.1, ge=0, lt=1)
    min_snr_gamma: float = Field(5.0, gt=0, le=1e6)
    ema_decay: float = Field(0.9995, gt=0, lt=1)
    text_learning_rate_scale: float = Field(0.25, ge=0, le=1000, description="the text encoder's rate over the UNet's")


class PretrainConfig(SettingsSection):
    """Settings of all stages of `sdlora pretrain`."""

    resolution: int = Field(
        64, ge=16, le=8192, multiple_of=8, description="side of the square training images, in pixels"
    )
    seed: int = Field(0, ge=0, le=MAX_SEED)
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    text_encoder: TextEncoderConfig = TextEncoderConfig()
    unet: UNetConfig = UNetConfig()
    decoder: DecoderConfig = DecoderConfig()


class PretrainData(DataConfig):
    """Data settings like an adapter's, but with fewer held-out images: a base model needs as many as possible."""

    held_out_fraction: float = Field(0.05, gt=0, lt=1, description="share of new images kept from training")


class PretrainPlan(SettingsSection):
    """Configuration file of `sdlora pretrain`: data, model and number of processes."""

    name: str = Field(
        "base",
        pattern=NAME_PATTERN,
        max_length=MAX_NAME_CHARS,
        description="name of the base model and its experiment",
    )
    data: PretrainData = PretrainData()
    model: PretrainConfig = PretrainConfig()
    processes: int = Field(
        1, ge=1, le=1024, description="processes that share each batch; on CPUs one per core is steadiest"
    )
