"""Base class of the rectified-flow families, Stable Diffusion 3 and FLUX."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from sdlora.diffusion.objectives import FlowObjective
from sdlora.models.families.base import Family, Sampler
from sdlora.models.families.dit_names import LayerSlice


class FlowFamily(Family):
    """Family with a transformer that predicts the velocity of a rectified flow."""

    scheduler_class = FlowMatchEulerDiscreteScheduler

    def objective(self, scheduler: Any) -> FlowObjective:
        """Build an objective with logit-normal timesteps and the scheduler's shift.

        A shift that depends on the image size (`use_dynamic_shifting`, FLUX.1 dev) applies to sampling only. Training
        uses no shift then, like diffusers' training scripts.
        """
        config = scheduler.config
        shift = 1.0 if config.use_dynamic_shifting else config.shift
        return FlowObjective.shifted(config.num_train_timesteps, shift)

    def sampler(self, scheduler: Any, sampler: Sampler) -> Any:
        """Build an Euler sampler for every `sampler`; on a straight flow, Euler steps correspond to DDIM."""
        return FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)

    def restoring_schedule(self, scheduler: Any, fraction: float, steps: int) -> tuple[Any, Tensor]:
        # Without the base's shift, because `fraction` is the noise level itself.
        euler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=scheduler.config.num_train_timesteps)
        euler.set_timesteps(sigmas=[fraction * (1 - step / steps) for step in range(steps)])
        return euler, euler.timesteps

    def noised(self, scheduler: Any, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        noisy: Tensor = scheduler.scale_noise(latents, timestep.expand(1), noise)
        return noisy

    @abstractmethod
    def original_slice(self, layer: str, hidden: int) -> LayerSlice | None:
        """Locate a layer in the original code base; None for layers outside the blocks.

        `hidden` is the transformer's width.
        """

    def kohya_name(self, layer: str) -> str:
        """Return OneTrainer's name of a layer, which ComfyUI reads; no layers are joined.

        `transformer_blocks.0.attn.to_q` -> `lora_transformer_transformer_blocks_0_attn_to_q`.
        """
        return "lora_transformer_" + layer.replace(".", "_")

    def kohya_slice(self, layer: str) -> LayerSlice:
        """Locate a layer under sd-scripts' names, which sd-scripts, ComfyUI, Forge and diffusers read.

        In FLUX, `transformer_blocks.0.attn.to_k` -> rows of `lora_unet_double_blocks_0_img_attn_qkv`.
        """
        settings = self.denoiser_settings
        layer_slice = self.original_slice(layer, settings["num_attention_heads"] * settings["attention_head_dim"])
        if layer_slice is None:
            return LayerSlice(self.kohya_name(layer))
        return replace(layer_slice, name="lora_unet_" + layer_slice.name.replace(".", "_"))

    @property
    def side_multiple_px(self) -> int:
        """Divisor of valid image sides in pixels: the transformers take patches of 2 x 2 latents."""
        return 2 * self.latent_reduction
