"""Autoencoder stage: pixels to latents and back (Rombach et al. 2022, arXiv:2112.10752, section 3.1)."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from sdlora.diffusion.seeds import step_generator
from sdlora.models.features import load_network, normalise
from sdlora.pretraining.config import PretrainConfig
from sdlora.pretraining.loop import Stage, autocast, train_stage

FEATURE_BLOCKS = (0, 2, 4, 8)  # outputs at 1/2, 1/4, 1/8 and 1/16 of the side


def build_autoencoder(config: PretrainConfig) -> AutoencoderKL:
    """Build an untrained autoencoder; its latents start nearly noiseless (log-variance -5)."""
    settings = config.autoencoder
    down, up = "DownEncoderBlock2D", "UpDecoderBlock2D"
    levels = len(settings.block_out_channels)
    autoencoder = AutoencoderKL(
        block_out_channels=settings.block_out_channels,
        down_block_types=(down,) * levels,
        up_block_types=(up,) * levels,
        layers_per_block=1,
        latent_channels=settings.latent_channels,
        norm_num_groups=min(16, settings.block_out_channels[0]),
        mid_block_add_attention=False,
        sample_size=config.resolution,
        scaling_factor=1.0,
        force_upcast=False,
    )
    with torch.no_grad():
        autoencoder.quant_conv.bias[settings.latent_channels :] = -5.0
    return autoencoder


def train_autoencoder(
    stage: Stage,
    images_uint8: Tensor,
    config: PretrainConfig,
) -> AutoencoderKL:
    """Train an autoencoder on (N, 3, S, S) uint8 images; its latents have mean 0 and deviation 1 per channel."""
    accelerator = stage.accelerator
    torch.manual_seed(config.seed)
    settings = config.autoencoder
    model = build_autoencoder(config).to(accelerator.device)
    wrapped = accelerator.prepare(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    distance = FeatureDistance().to(accelerator.device)

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(config.seed, step, f"autoencoder-{accelerator.process_index}")
        pixels = draw_pixels(images_uint8, settings.batch_size // accelerator.num_processes, generator)
        pixels = pixels.to(accelerator.device)
        torch.manual_seed(generator.initial_seed())  # the latents' sampling noise
        with autocast(accelerator.device):
            output, moments = _reconstruct(wrapped, pixels)
            output = output.float()
            features = distance(output, pixels)
        pixel_loss = (output - pixels).abs().mean()
        mean, logvar = moments.float().chunk(2, dim=1)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        ramp = min(1.0, step / (0.3 * settings.steps))
        loss = pixel_loss + settings.perceptual_weight * features + settings.kl_weight * ramp * kl
        return loss, {"pixel_loss": pixel_loss.item(), "feature_distance": features.item(), "kl": kl.item()}

    trained = train_stage(stage, model, optimizer, loss_of_step, settings)
    assert isinstance(trained, AutoencoderKL)
    standardise_latents(trained, images_uint8)
    return trained


class FeatureDistance(nn.Module):
    """Mean squared distance of unit-length features of an ImageNet network, over four depths.

    The measure follows Zhang et al. 2018 (arXiv:1801.03924), with a network that ships offline and without learnt
    weights of the depths.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network = load_network()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            target_features = self._features(target)
        output_features = self._features(output)
        distances = [(a - b).square().sum(1).mean() for a, b in zip(output_features, target_features, strict=True)]
        return torch.stack(distances).mean()

    def _features(self, pixels: Tensor) -> list[Tensor]:
        network: Any = self.network  # its layers are untyped attributes
        features = []
        hidden = network._swish(network._bn0(network._conv_stem(normalise(pixels))))
        for index, block in enumerate(network._blocks[: max(FEATURE_BLOCKS) + 1]):
            hidden = block(hidden)
            if index in FEATURE_BLOCKS:
                features.append(nn.functional.normalize(hidden.float(), dim=1))
        return features


def draw_pixels(images_uint8: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw a random batch (B, 3, S, S) in [-1, 1], shifted by up to 4 px, half mirrored, a quarter recoloured.

    Recolouring permutes the channels, because the autoencoder must reproduce colours that its training set lacks.
    """
    indices = torch.randint(len(images_uint8), (count,), generator=generator)
    pixels = images_uint8[indices].float() / 127.5 - 1
    shift = torch.randint(-4, 5, (count, 2), generator=generator)
    mirror = torch.rand(count, generator=generator) < 0.5
    recolour = torch.rand(count, generator=generator) < 0.25
    rows = []
    for image, (dy, dx), flip, swap in zip(pixels, shift.tolist(), mirror.tolist(), recolour.tolist(), strict=True):
        padded = nn.functional.pad(image[None], (4, 4, 4, 4), mode="replicate")[0]
        side = image.shape[-1]
        image = padded[:, 4 + dy : 4 + dy + side, 4 + dx : 4 + dx + side]
        image = image.flip(-1) if flip else image
        rows.append(image[torch.randperm(3, generator=generator)] if swap else image)
    return torch.stack(rows)


@torch.no_grad()
def standardise_latents(autoencoder: AutoencoderKL, images_uint8: Tensor) -> None:
    """Fold each latent channel's mean and deviation into the 1x1 convolutions around the latents.

    Afterwards the latents are standardised and `scaling_factor` is 1, so any diffusers code scales them correctly.
    """
    latents = encode_images(autoencoder, images_uint8[:2048])  # (N, C, h, w)
    mean = latents.mean((0, 2, 3))
    std = latents.std((0, 2, 3))
    channels = len(mean)
    quant, post = autoencoder.quant_conv, autoencoder.post_quant_conv
    quant.weight[:channels] /= std.view(-1, 1, 1, 1)
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.bias[channels:] -= 2 * std.log()  # the second half is the log-variance
    # post(z) with z = std * z' + mean
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= std.view(1, -1, 1, 1)


@torch.no_grad()
def encode_images(autoencoder: AutoencoderKL, images_uint8: Tensor, batch_size: int = 64) -> Tensor:
    """Encode (N, 3, S, S) uint8 images to the means of their latents, (N, C, S/4, S/4)."""
    device = next(autoencoder.parameters()).device
    batches = [
        autoencoder.encode(chunk.to(device).float() / 127.5 - 1).latent_dist.mean.cpu()
        for chunk in images_uint8.split(batch_size)
    ]
    return torch.cat(batches)


def _reconstruct(autoencoder: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    # DistributedDataParallel needs a call of `forward`. A hook returns the moments, because `forward` returns only the
    # image.
    moments: list[Tensor] = []
    unwrapped: Any = getattr(autoencoder, "module", autoencoder)
    handle = unwrapped.quant_conv.register_forward_hook(lambda _m, _i, output: moments.append(output))
    try:
        output = autoencoder(pixels, sample_posterior=True).sample
    finally:
        handle.remove()
    return output, moments[0]
