"""What the rectified-flow families share: Stable Diffusion 3 and FLUX."""

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
    """A transformer that predicts the velocity of a rectified flow."""

    scheduler_class = FlowMatchEulerDiscreteScheduler

    def objective(self, scheduler: Any) -> FlowObjective:
        """Logit-normal timesteps under the scheduler's shift.

        A shift that depends on the image's size (`use_dynamic_shifting`, FLUX.1 dev) belongs to drawing: training goes
        without, as diffusers' own training scripts do.
        """
        config = scheduler.config
        shift = 1.0 if config.use_dynamic_shifting else config.shift
        return FlowObjective.shifted(config.num_train_timesteps, shift)

    def sampler(self, scheduler: Any, sampler: Sampler) -> Any:
        """Euler steps whichever sampler is asked for: of a straight flow they are what DDIM is of a diffusion."""
        return FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)

    def restoring_schedule(self, scheduler: Any, fraction: float, steps: int) -> tuple[Any, Tensor]:
        # Without the base's shift: the noise levels are meant as they are given.
        euler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=scheduler.config.num_train_timesteps)
        euler.set_timesteps(sigmas=[fraction * (1 - step / steps) for step in range(steps)])
        return euler, euler.timesteps

    def noised(self, scheduler: Any, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        noisy: Tensor = scheduler.scale_noise(latents, timestep.expand(1), noise)
        return noisy

    @abstractmethod
    def original_slice(self, layer: str, hidden: int) -> LayerSlice | None:
        """Where a layer lies in the original code base, if it does; `hidden` is the transformer's width."""

    def kohya_name(self, layer: str) -> str:
        """`transformer_blocks.0.attn.to_q` -> `lora_transformer_transformer_blocks_0_attn_to_q`.

        OneTrainer's names, which ComfyUI reads: they need no layers joined.
        """
        return "lora_transformer_" + layer.replace(".", "_")

    def kohya_slice(self, layer: str) -> LayerSlice:
        """`transformer_blocks.0.attn.to_k` -> rows of `lora_unet_double_blocks_0_img_attn_qkv`, in FLUX's case.

        sd-scripts' names, which it, ComfyUI, Forge and diffusers read.
        """
        settings = self.denoiser_settings
        layer_slice = self.original_slice(layer, settings["num_attention_heads"] * settings["attention_head_dim"])
        if layer_slice is None:
            return LayerSlice(self.kohya_name(layer))
        return replace(layer_slice, name="lora_unet_" + layer_slice.name.replace(".", "_"))

    @property
    def side_multiple_px(self) -> int:
        """The transformers see patches of 2 x 2 latents."""
        return 2 * self.latent_reduction
