"""Decoder stage: adversarial training with a frozen encoder (Esser et al. 2021, arXiv:2012.09841).

The stage is the last one. The latents do not change, so the trained denoiser stays valid.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from sdlora.diffusion.seeds import step_generator
from sdlora.pretraining.autoencoder import FeatureDistance, draw_pixels
from sdlora.pretraining.config import PretrainConfig
from sdlora.pretraining.loop import Stage, autocast, train_stage


class PatchDiscriminator(nn.Sequential):
    """Discriminator of overlapping patches: (B, 3, S, S) in [-1, 1] -> (B, 1, S/8, S/8) logits, high for real."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.GroupNorm(8, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
            nn.GroupNorm(8, 4 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, 3, padding=1),
        )


class DecoderAndDiscriminator(nn.Module):
    """Decoder and discriminator in one module, for a joint backward pass and optimiser step.

    The decoder's loss uses detached weights of the discriminator. The discriminator's losses use a detached output of
    the decoder. Each network therefore gets gradients from its own loss only.
    """

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.discriminator = PatchDiscriminator()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with torch.no_grad():
            latents = self.autoencoder.encode(pixels).latent_dist.mean
        output = self.autoencoder.decode(latents).sample
        frozen = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        seen_by_decoder = torch.func.functional_call(self.discriminator, frozen, (output,))
        return output, seen_by_decoder, self.discriminator(pixels), self.discriminator(output.detach())


def train_decoder(
    stage: Stage,
    autoencoder: AutoencoderKL,
    images_uint8: Tensor,
    config: PretrainConfig,
) -> AutoencoderKL:
    """Train the decoder on (N, 3, S, S) uint8 images; the encoder stays frozen."""
    accelerator = stage.accelerator
    torch.manual_seed(config.seed + 3)
    settings = config.decoder
    autoencoder.train().requires_grad_(False)
    decoder = [*autoencoder.decoder.parameters(), *autoencoder.post_quant_conv.parameters()]
    for parameter in decoder:
        parameter.requires_grad_(True)
    model = DecoderAndDiscriminator(autoencoder).to(accelerator.device)
    wrapped = accelerator.prepare(model)
    optimizer = torch.optim.AdamW(
        [
            {"params": decoder, "lr": settings.learning_rate},
            {"params": list(model.discriminator.parameters()), "lr": 2 * settings.learning_rate},
        ],
        betas=(0.5, 0.9),
        weight_decay=0.0,
    )
    distance = FeatureDistance().to(accelerator.device)

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(config.seed, step, f"decoder-{accelerator.process_index}")
        pixels = draw_pixels(images_uint8, settings.batch_size // accelerator.num_processes, generator)
        pixels = pixels.to(accelerator.device)
        with autocast(accelerator.device):
            output, seen_by_decoder, real_logits, fake_logits = wrapped(pixels)
            features = distance(output.float(), pixels)
        pixel_loss = (output.float() - pixels).abs().mean()
        discriminator_loss = (
            nn.functional.relu(1 - real_logits.float()).mean() + nn.functional.relu(1 + fake_logits.float()).mean()
        )
        # In the first tenth only the discriminator learns, because an untrained discriminator only adds noise.
        adversarial_weight = 0.0 if step < 0.1 * settings.steps else settings.adversarial_weight
        loss = (
            pixel_loss
            + settings.perceptual_weight * features
            - adversarial_weight * seen_by_decoder.float().mean()
            + discriminator_loss / 2
        )
        numbers = {"pixel_loss": pixel_loss, "feature_distance": features, "discriminator_loss": discriminator_loss}
        return loss, {name: value.item() for name, value in numbers.items()}

    trained = train_stage(stage, model, optimizer, loss_of_step, settings)
    assert isinstance(trained, DecoderAndDiscriminator)
    return trained.autoencoder
