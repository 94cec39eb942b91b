"""Denoiser stage: a text-conditioned UNet that predicts velocity (Salimans & Ho 2022, arXiv:2202.00512)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from sdlora.diffusion.seeds import step_generator
from sdlora.pretraining.config import PretrainConfig
from sdlora.pretraining.loop import Stage, autocast, train_stage
from sdlora.pretraining.text_encoder import tokenize


def build_unet(config: PretrainConfig) -> UNet2DConditionModel:
    """Build an untrained UNet; the largest levels have no attention, to save time."""
    settings = config.unet
    return UNet2DConditionModel(
        sample_size=config.resolution // 2 ** (len(config.autoencoder.block_out_channels) - 1),
        in_channels=config.autoencoder.latent_channels,
        out_channels=config.autoencoder.latent_channels,
        block_out_channels=settings.block_out_channels,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in settings.attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(settings.attention)),
        layers_per_block=settings.layers_per_block,
        attention_head_dim=settings.heads,  # diffusers keeps the number of heads under this name
        cross_attention_dim=config.text_encoder.hidden_size,
        norm_num_groups=min(16, settings.block_out_channels[0]),
    )


def build_scheduler() -> DDIMScheduler:
    """Build Stable Diffusion's noise schedule with velocity targets."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


class TextToLatents(nn.Module):
    """Text encoder and UNet in one module, for a joint optimiser step and wrapper."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet

    def forward(self, noisy_latents: Tensor, timesteps: Tensor, token_ids: Tensor) -> Tensor:
        encoder_hidden_states = self.text_encoder(token_ids).last_hidden_state  # (B, T, D)
        return self.unet(noisy_latents, timesteps, encoder_hidden_states).sample  # type: ignore[no-any-return]


def train_unet(
    stage: Stage,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    latents: Tensor,
    captions: Sequence[Sequence[str]],
    config: PretrainConfig,
) -> TextToLatents:
    """Train UNet and text encoder on (N, C, h, w) latents, each with one or more captions."""
    accelerator = stage.accelerator
    torch.manual_seed(config.seed + 2)
    settings = config.unet
    model = TextToLatents(text_encoder.train().requires_grad_(True), build_unet(config)).to(accelerator.device)
    if accelerator.device.type == "cpu":
        model.unet.set_attn_processor(AttnProcessor())  # plain attention, see text_encoder.py
    wrapped = accelerator.prepare(model)
    optimizer = torch.optim.AdamW(
        [
            {"params": list(model.unet.parameters()), "lr": settings.learning_rate},
            {
                "params": list(model.text_encoder.parameters()),
                "lr": settings.learning_rate * settings.text_learning_rate_scale,
            },
        ],
        betas=(0.9, 0.99),
        weight_decay=0.01,
        foreach=True,
    )
    scheduler = build_scheduler()
    snr = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    # min-SNR for velocity: min(snr, gamma) / (snr + 1) (Hang et al. 2023, arXiv:2303.09556).
    weights = snr.clamp(max=settings.min_snr_gamma) / (snr + 1)
    tokens = [tokenize(tokenizer, texts) for texts in captions]
    no_caption = tokenize(tokenizer, [""])[0]

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(config.seed, step, "unet")
        count = settings.batch_size
        indices = torch.randint(len(latents), (count,), generator=generator)
        rows = [tokens[i][torch.randint(len(tokens[i]), (), generator=generator)] for i in indices.tolist()]
        dropped = torch.rand(count, generator=generator) < settings.caption_dropout
        token_ids = torch.stack([no_caption if drop else row for row, drop in zip(rows, dropped, strict=True)])
        # One timestep in each 1/count of the range reduces the variance of the loss.
        positions = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
        timesteps = (positions * len(snr)).long()
        noise = torch.randn((count, *latents.shape[1:]), generator=generator)
        process_rows = slice(accelerator.process_index, None, accelerator.num_processes)
        batch = (latents[indices][process_rows], noise[process_rows], timesteps[process_rows], token_ids[process_rows])
        clean, noise, timesteps, token_ids = (tensor.to(accelerator.device) for tensor in batch)
        noisy = scheduler.add_noise(clean, noise, timesteps)
        target = scheduler.get_velocity(clean, noise, timesteps)
        with autocast(accelerator.device):
            predicted = wrapped(noisy, timesteps, token_ids)
        errors = (predicted.float() - target).square().mean((1, 2, 3))
        loss = (errors * weights.to(errors.device)[timesteps]).mean()
        return loss, {"loss": loss.item(), "velocity_mse": errors.mean().item()}

    trained = train_stage(
        stage,
        model,
        optimizer,
        loss_of_step,
        settings,
        ema_decay=settings.ema_decay,
        flat_fraction=settings.flat_fraction,
    )
    assert isinstance(trained, TextToLatents)
    return trained
