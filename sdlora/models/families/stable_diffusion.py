"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, a U-Net, denoising diffusion."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from sdlora.diffusion.objectives import DenoisingObjective
from sdlora.models.families.base import Family, Sampler, TextOutputs, TextPart


class FinalHiddenState(TextPart):
    """The last hidden state after the final norm; version 2's settings leave the last layer of OpenCLIP out."""

    encoder_class = CLIPTextModel
    tokenizer_class = CLIPTokenizer
    output_names = ("hidden",)

    def outputs(self, encoder: nn.Module, token_ids: Tensor) -> dict[str, Tensor]:
        return {"hidden": encoder(token_ids).last_hidden_state}  # (B, T, D)


class UNetFamily(Family):
    """What Stable Diffusion 1, 2 and XL share."""

    denoiser_class = UNet2DConditionModel
    scheduler_class = DDIMScheduler

    def objective(self, scheduler: Any) -> DenoisingObjective:
        return DenoisingObjective(
            scheduler.alphas_cumprod.to(torch.float32), prediction=scheduler.config.prediction_type
        )

    @property
    def native_resolution(self) -> int:
        return int(self.denoiser_settings["sample_size"]) * self.latent_reduction

    def sampler(self, scheduler: Any, sampler: Sampler) -> Any:
        kind = DDIMScheduler if sampler == "ddim" else DPMSolverMultistepScheduler
        return kind.from_config(scheduler.config)


class StableDiffusion1(UNetFamily):
    """Stable Diffusion 1.x."""

    pipeline_class = StableDiffusionPipeline
    pipeline_extras: ClassVar = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}

    @cached_property
    def text_parts(self) -> tuple[TextPart, ...]:
        return (FinalHiddenState("text_encoder", "tokenizer"),)

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
        """`down_blocks.0.attentions.0.proj_in` -> `lora_unet_down_blocks_0_attentions_0_proj_in`."""
        return "lora_unet_" + layer.replace(".", "_")

    def kohya_metadata(self, prediction: str) -> dict[str, str]:
        # A1111 takes any file with other metadata for version 1, so a small model of this shape is named as what it is.
        known = self.denoiser_settings["cross_attention_dim"] == 768
        return {
            "ss_v2": "False",
            "ss_base_model_version": ("sd_v1" + "_v" * (prediction == "v_prediction")) if known else "sdlora",
            "modelspec.architecture": "stable-diffusion-v1/lora",
        }


class StableDiffusion2(StableDiffusion1):
    """Stable Diffusion 2.x: OpenCLIP's text encoder, and mostly velocity prediction."""

    def kohya_metadata(self, prediction: str) -> dict[str, str]:
        velocity = prediction == "v_prediction"
        return {
            "ss_v2": "True",
            "ss_base_model_version": "sd_v2_v" if velocity else "sd_v2",
            "modelspec.architecture": f"stable-diffusion-v2-{'768-v' if velocity else '512'}/lora",
        }
