"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, a U-Net, denoising diffusion."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import ceil
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn

from sdlora.diffusion.objectives import DenoisingObjective
from sdlora.models.families.base import Family, Sampler, TextOutputs, TextPart
from sdlora.models.families.text import ClipFinal


class UNetFamily(Family):
    """Family with a U-Net and denoising diffusion: base class of Stable Diffusion 1, 2 and XL."""

    denoiser_class = UNet2DConditionModel
    scheduler_class = DDIMScheduler
    adapts_text = True

    def objective(self, scheduler: Any) -> DenoisingObjective:
        return DenoisingObjective(
            scheduler.alphas_cumprod.to(torch.float32), prediction=scheduler.config.prediction_type
        )

    @property
    def side_multiple_px(self) -> int:
        """Divisor of valid image sides in pixels: each level of the U-Net except the last halves the latents."""
        return self.latent_reduction << (len(self.denoiser_settings["block_out_channels"]) - 1)

    def sampler(self, scheduler: Any, sampler: Sampler) -> Any:
        kind = DDIMScheduler if sampler == "ddim" else DPMSolverMultistepScheduler
        return kind.from_config(scheduler.config)

    def restoring_schedule(self, scheduler: Any, fraction: float, steps: int) -> tuple[Any, Tensor]:
        ddim = DDIMScheduler.from_config(scheduler.config)
        ddim.set_timesteps(ceil(steps / fraction))
        return ddim, ddim.timesteps[-steps:]

    def noised(self, scheduler: Any, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        noisy: Tensor = scheduler.add_noise(latents, noise, timestep.expand(len(latents)))
        return noisy

    def sampling_options(self, scheduler: Any) -> dict[str, Any]:
        options = super().sampling_options(scheduler)
        if scheduler.config.rescale_betas_zero_snr:
            # The first step has no signal, so guidance would overexpose. Rescaling limits the contrast to that of the
            # prediction. Source: Lin et al. 2023, arXiv:2305.08891, section 3.4, which recommends 0.7.
            options["guidance_rescale"] = 0.7
        return options


class StableDiffusion1(UNetFamily):
    """Stable Diffusion 1.x."""

    pipeline_class = StableDiffusionPipeline
    pipeline_extras: ClassVar = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}

    @cached_property
    def text_parts(self) -> tuple[TextPart, ...]:
        return (ClipFinal("text_encoder", "tokenizer"),)

    def conditioning(self, outputs: TextOutputs) -> dict[str, Tensor]:
        return {"encoder_hidden_states": outputs["text_encoder"]["hidden"]}

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]
    ) -> Tensor:
        prediction: Tensor = denoiser(noisy, timesteps, **conditioning, return_dict=False)[0]
        return prediction

    def pipeline_inputs(self, conditioning: Mapping[str, Tensor], negative: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            "prompt_embeds": conditioning["encoder_hidden_states"],
            "negative_prompt_embeds": negative["encoder_hidden_states"],
        }

    def kohya_name(self, layer: str) -> str:
        """Return a layer's name in kohya's files.

        `down_blocks.0.attentions.0.proj_in` -> `lora_unet_down_blocks_0_attentions_0_proj_in`.
        """
        return "lora_unet_" + layer.replace(".", "_")

    def kohya_metadata(self, prediction: str) -> dict[str, str]:
        # A1111 reads every unknown version as version 1, so a small model of this shape can carry its true name.
        has_published_width = self.denoiser_settings["cross_attention_dim"] == 768
        return {
            "ss_v2": "False",
            "ss_base_model_version": ("sd_v1" + "_v" * (prediction == "v_prediction"))
            if has_published_width
            else "sdlora",
            "modelspec.architecture": "stable-diffusion-v1/lora",
            "modelspec.implementation": "diffusers",
        }


class StableDiffusion2(StableDiffusion1):
    """Stable Diffusion 2.x: OpenCLIP's text encoder, and mostly velocity prediction."""

    def kohya_metadata(self, prediction: str) -> dict[str, str]:
        velocity = prediction == "v_prediction"
        return {
            "ss_v2": "True",
            "ss_base_model_version": "sd_v2_v" if velocity else "sd_v2",
            "modelspec.architecture": f"stable-diffusion-v2-{'768-v' if velocity else '512'}/lora",
            "modelspec.implementation": "diffusers",
        }
