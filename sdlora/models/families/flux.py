"""FLUX.1 dev and schnell: a transformer over packed latents, a pooled CLIP embedding and T5 embeddings of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn

from sdlora.models.families.base import TextOutputs, TextPart
from sdlora.models.families.dit_names import LayerSlice, flux_slice
from sdlora.models.families.flow import FlowFamily
from sdlora.models.families.text import ClipPooled, T5Final

T5_TOKENS = 512
# dev is distilled to take guidance as an input. At 1 the output follows the data. An adapter trained at a higher value
# would learn to undo the guidance. sd-scripts and diffusers' documentation also train with 1.
TRAINING_GUIDANCE = 1.0


class Flux(FlowFamily):
    """FLUX.1 (Black Forest Labs 2024, github.com/black-forest-labs/flux)."""

    denoiser_class = FluxTransformer2DModel
    pipeline_class = FluxPipeline

    @cached_property
    def text_parts(self) -> tuple[TextPart, ...]:
        # schnell was trained with 256 tokens, dev with 512; only dev has a guidance input.
        tokens = T5_TOKENS if self.denoiser_settings["guidance_embeds"] else T5_TOKENS // 2
        return ClipPooled("text_encoder", "tokenizer"), T5Final("text_encoder_2", "tokenizer_2", tokens)

    def conditioning(self, outputs: TextOutputs) -> dict[str, Tensor]:
        return {
            "encoder_hidden_states": outputs["text_encoder_2"]["hidden"],  # (B, T, D)
            "pooled_projections": outputs["text_encoder"]["pooled"],  # (B, P)
        }

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]
    ) -> Tensor:
        height, width = noisy.shape[-2:]
        guidance = {}
        if self.denoiser_settings["guidance_embeds"]:
            guidance["guidance"] = torch.full((len(noisy),), TRAINING_GUIDANCE, device=noisy.device)
        packed: Tensor = denoiser(
            pack(noisy),
            timestep=timesteps.expand(len(noisy)) / 1000,  # the transformer multiplies by 1000 itself
            img_ids=image_positions(height, width).to(noisy.device),
            txt_ids=torch.zeros(conditioning["encoder_hidden_states"].shape[-2], 3, device=noisy.device),
            **conditioning,
            **guidance,
            return_dict=False,
        )[0]
        return unpack(packed, height, width)

    def drawn_latents(self, latents: Tensor, height_px: int, width_px: int) -> Tensor:
        return unpack(latents, height_px // self.latent_reduction, width_px // self.latent_reduction)

    def pipeline_inputs(self, conditioning: Mapping[str, Tensor], negative: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename conditioning to the pipeline's names.

        The negative prompt is not used: guidance is an input of the network, not a second pass.
        """
        return {
            "prompt_embeds": conditioning["encoder_hidden_states"],
            "pooled_prompt_embeds": conditioning["pooled_projections"],
        }

    def original_slice(self, layer: str, hidden: int) -> LayerSlice | None:
        return flux_slice(layer, hidden)

    def kohya_metadata(self, prediction: str) -> dict[str, str]:
        edition = "dev" if self.denoiser_settings["guidance_embeds"] else "schnell"
        return {
            "ss_v2": "False",
            "ss_base_model_version": "flux1",
            "modelspec.architecture": f"flux-1-{edition}/lora",
            "modelspec.implementation": "https://github.com/black-forest-labs/flux",
        }

    kohya_module = "networks.lora_flux"


def pack(latents: Tensor) -> Tensor:
    """Pack each 2 x 2 square of positions into one token: (B, C, h, w) -> (B, h/2 * w/2, 4 C)."""
    batch, channels, height, width = latents.shape
    squares = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return squares.reshape(batch, height // 2 * (width // 2), channels * 4)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Invert `pack`: (B, h/2 * w/2, 4 C) -> (B, C, h, w)."""
    batch, _, channels = tokens.shape
    squares = tokens.view(batch, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return squares.reshape(batch, channels // 4, height, width)


def image_positions(height: int, width: int) -> Tensor:
    """Return 0, row and column of each token for the rotary embedding: (h/2 * w/2, 3)."""
    rows, columns = torch.meshgrid(torch.arange(height // 2), torch.arange(width // 2), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1).float()
