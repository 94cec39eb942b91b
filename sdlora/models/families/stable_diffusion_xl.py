"""Stable Diffusion XL: two CLIP text encoders, and a U-Net conditioned on the size and crop of each image."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor, nn

from sdlora.models.families.base import Framing, TextOutputs, TextPart
from sdlora.models.families.sgm_names import sgm_name
from sdlora.models.families.stable_diffusion import UNetFamily
from sdlora.models.families.text import ClipPenultimate, ClipProjected


class StableDiffusionXL(UNetFamily):
    """Stable Diffusion XL base (Podell et al. 2023, arXiv:2307.01952); the refiner is another pipeline."""

    pipeline_class = StableDiffusionXLPipeline

    @cached_property
    def text_parts(self) -> tuple[TextPart, ...]:
        return ClipPenultimate("text_encoder", "tokenizer"), ClipProjected("text_encoder_2", "tokenizer_2")

    def conditioning(self, outputs: TextOutputs) -> dict[str, Tensor]:
        clip_l, clip_g = outputs["text_encoder"], outputs["text_encoder_2"]
        return {
            "encoder_hidden_states": torch.cat([clip_l["hidden"], clip_g["hidden"]], dim=-1),  # (B, T, D1 + D2)
            "text_embeds": clip_g["pooled"],  # (B, P)
        }

    shows_framing = True

    def image_conditioning(self, framing: Framing) -> dict[str, Tensor]:
        """Build the (6,) size and crop conditioning, by which the base learnt to draw uncropped, sharp images."""
        numbers = (*framing.original_px, *framing.crop_px, *framing.target_px)
        return {"time_ids": torch.tensor(numbers, dtype=torch.float32)}  # (6,)

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]
    ) -> Tensor:
        time_ids = conditioning.get("time_ids")
        if time_ids is None:  # like the stock pipeline: an uncropped image of this size
            side_px = (noisy.shape[-2] * self.latent_reduction, noisy.shape[-1] * self.latent_reduction)
            uncropped = self.image_conditioning(Framing(side_px, (0, 0), side_px))["time_ids"]
            time_ids = uncropped.to(noisy.device).expand(len(noisy), -1)
        prediction: Tensor = denoiser(
            noisy,
            timesteps,
            encoder_hidden_states=conditioning["encoder_hidden_states"],
            added_cond_kwargs={"text_embeds": conditioning["text_embeds"], "time_ids": time_ids},
            return_dict=False,
        )[0]
        return prediction

    def pipeline_inputs(self, conditioning: Mapping[str, Tensor], negative: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            "prompt_embeds": conditioning["encoder_hidden_states"],
            "pooled_prompt_embeds": conditioning["text_embeds"],
            "negative_prompt_embeds": negative["encoder_hidden_states"],
            "negative_pooled_prompt_embeds": negative["text_embeds"],
        }

    def kohya_name(self, layer: str) -> str:
        """Return the name of a layer in the original code base, as sd-scripts writes it.

        `down_blocks.1.attentions.0.proj_in` -> `lora_unet_input_blocks_4_1_proj_in`. A1111 reads only these names for
        this family.
        """
        return "lora_unet_" + sgm_name(layer, self.denoiser_settings).replace(".", "_")

    def kohya_metadata(self, prediction: str) -> dict[str, str]:
        return {
            "ss_v2": "False",
            "ss_base_model_version": "sdxl_base_v1-0",
            "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
            "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        }
