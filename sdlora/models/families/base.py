"""What sets one architecture apart from another, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sdlora.diffusion.objectives import Objective
from sdlora.models.families.dit_names import LayerSlice
from sdlora.models.families.layouts import Layout, read_json

Sampler = Literal["ddim", "dpm++"]
TextOutputs = Mapping[str, Mapping[str, Tensor]]
"""What the text encoders made of a batch: by encoder folder and output name, each (B, ...)."""


@dataclass(frozen=True)
class Framing:
    """How an image became what is trained on: scaled from `original_px`, cropped at `crop_px` to `target_px`.

    Each is (height, width) or (top, left), in pixels.
    """

    original_px: tuple[int, int]
    crop_px: tuple[int, int]
    target_px: tuple[int, int]


class TextPart(ABC):
    """One text encoder: how prompts become tokens, and which of its outputs the denoiser is shown."""

    encoder_class: ClassVar[Any]
    tokenizer_class: ClassVar[Any]
    output_names: ClassVar[tuple[str, ...]]
    is_t5: ClassVar[bool] = False
    uses_last_layer: ClassVar[bool] = True
    """Whether any output passes through the encoder's last layer: if not, nothing can be learnt there."""

    def __init__(self, folder: str, tokenizer_folder: str, max_tokens: int | None = None) -> None:
        """Name the folders; `max_tokens` is by default what the tokenizer says."""
        self.folder = folder
        self.tokenizer_folder = tokenizer_folder
        self.max_tokens = max_tokens

    @property
    def name(self) -> str:
        """A name for caches: another encoding of the same encoder has another."""
        return "-".join((type(self).__name__, *map(str, filter(None, (self.max_tokens,)))))

    def token_ids(self, tokenizer: Any, prompts: Sequence[str]) -> Tensor:
        """(B, T) int64, padded and cut to the encoder's length."""
        encoded = tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.max_tokens or tokenizer.model_max_length,
            return_tensors="pt",
        )
        token_ids: Tensor = encoded.input_ids
        return token_ids

    @abstractmethod
    def outputs(self, encoder: nn.Module, token_ids: Tensor) -> dict[str, Tensor]:
        """The encoder's outputs by the names in `output_names`, each (B, ...)."""


class Family(ABC):
    """A base model folder seen through its architecture. Only settings files are read; no weights are held."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder = folder
        self.layout = layout

    @property
    def name(self) -> str:
        return self.layout.name

    def settings(self, part: str) -> dict[str, Any]:
        """The `config.json` of one part.

        Raises:
            WeightsError: missing or damaged.
        """
        return read_json(self.folder / part / "config.json")

    @cached_property
    def denoiser_settings(self) -> dict[str, Any]:
        return self.settings(self.layout.denoiser)

    @property
    @abstractmethod
    def denoiser_class(self) -> Any: ...

    @property
    @abstractmethod
    def pipeline_class(self) -> Any:
        """The stock diffusers pipeline."""

    @property
    @abstractmethod
    def scheduler_class(self) -> Any:
        """The scheduler that training and the default sampler read the noise schedule with."""

    @cached_property
    @abstractmethod
    def text_parts(self) -> tuple[TextPart, ...]:
        """The text encoders that this base model has."""

    @abstractmethod
    def objective(self, scheduler: Any) -> Objective:
        """What the base was trained on, read from its scheduler."""

    @abstractmethod
    def conditioning(self, outputs: TextOutputs) -> dict[str, Tensor]:
        """The text's share of what the denoiser is shown, under the names of its `forward`, each (B, ...)."""

    @property
    def adapts_text(self) -> bool:
        """Whether adapters of its text encoders can be trained."""
        return False

    @property
    def shows_framing(self) -> bool:
        """Whether the denoiser is told how each image was framed."""
        return False

    def image_conditioning(self, framing: Framing) -> dict[str, Tensor]:
        """One image's own share of what the denoiser is shown, without batch dimension; most families have none."""
        return {}

    @abstractmethod
    def predict(
        self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]
    ) -> Tensor:
        """The denoiser's output: (B, C, h, w) noisy latents, (B,) network timesteps -> (B, C, h, w)."""

    @property
    @abstractmethod
    def native_resolution(self) -> int:
        """Side of the images the base was trained on, in pixels."""

    @property
    @abstractmethod
    def side_multiple_px(self) -> int:
        """Image sides must be multiples of this many pixels, so that the denoiser can halve or pack the latents."""

    @property
    def latent_reduction(self) -> int:
        """Pixels per latent position along one side: each level of the autoencoder but the last halves the side."""
        return 1 << (len(self.settings("vae")["block_out_channels"]) - 1)

    @property
    def pipeline_extras(self) -> dict[str, Any]:
        """Further arguments that build the stock pipeline."""
        return {}

    @abstractmethod
    def sampler(self, scheduler: Any, sampler: Sampler) -> Any:
        """The scheduler that draws, made from the base's own."""

    @abstractmethod
    def restoring_schedule(self, scheduler: Any, fraction: float, steps: int) -> tuple[Any, Tensor]:
        """A deterministic sampler, and its last `steps` timesteps from a share `fraction` of the noise schedule on."""

    @abstractmethod
    def noised(self, scheduler: Any, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """Latents at the noise level of one of that sampler's timesteps."""

    def sampling_options(self, scheduler: Any) -> dict[str, Any]:
        """Further arguments of the stock pipeline's `__call__`."""
        side_px = self.native_resolution
        return {"height": side_px, "width": side_px}

    @abstractmethod
    def pipeline_inputs(self, conditioning: Mapping[str, Tensor], negative: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Conditioning under the names of the stock pipeline's `__call__`."""

    def drawn_latents(self, latents: Tensor, height_px: int, width_px: int) -> Tensor:
        """The stock pipeline's latents as (B, C, h, w)."""
        return latents

    @abstractmethod
    def kohya_name(self, layer: str) -> str:
        """The name of a denoiser layer in kohya's files, without the tensor's own suffix."""

    def kohya_slice(self, layer: str) -> LayerSlice:
        """Where a low-rank update of a denoiser layer is written in kohya's files: alone, or as rows of a larger one.

        Other kinds of update cannot be joined; they go by `kohya_name`.
        """
        return LayerSlice(self.kohya_name(layer))

    def kohya_text_name(self, part: str, layer: str) -> str:
        """The name of a text encoder's layer in kohya's files.

        `text_encoder_2`, `encoder.layers.0.mlp.fc1` -> `lora_te2_text_model_encoder_layers_0_mlp_fc1`. With a single
        encoder the prefix has no number; T5 is always the third.
        """
        encoder = next(text for text in self.text_parts if text.folder == part)
        number = 3 if encoder.is_t5 else self.text_parts.index(encoder) + 1
        prefix = "lora_te" if len(self.layout.text) == 1 else f"lora_te{number}"
        # transformers gives CLIPTextModel's layers without, CLIPTextModelWithProjection's with the outer name.
        inner = (
            layer if encoder.is_t5 or layer.startswith(("text_model.", "text_projection")) else f"text_model.{layer}"
        )
        return f"{prefix}_{inner.replace('.', '_')}"

    @abstractmethod
    def kohya_metadata(self, prediction: str) -> dict[str, str]:
        """The `ss_*` and `modelspec.*` entries that tools choose their loader by."""


def empty_device_cache(device: torch.device) -> None:
    """Hand the memory of parts that nothing refers to any more back to the device, for others to take."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
