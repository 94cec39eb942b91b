"""Interface of a model family: text encoders, objective, conditioning, samplers and layer names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from sdlora.diffusion.objectives import Objective
from sdlora.models.families.dit_names import LayerSlice
from sdlora.models.families.layouts import Layout, read_json
from sdlora.models.families.sizes import latent_reduction, native_resolution

Sampler = Literal["ddim", "dpm++"]
TextOutputs = Mapping[str, Mapping[str, Tensor]]
"""Outputs of the text encoders for a batch, by encoder folder and output name, each (B, ...)."""


@dataclass(frozen=True)
class Framing:
    """Scaling and cropping of a training image: scaled from `original_px`, cropped at `crop_px` to `target_px`.

    Sizes are (height, width) and the crop is (top, left), in pixels.
    """

    original_px: tuple[int, int]
    crop_px: tuple[int, int]
    target_px: tuple[int, int]


class TextPart(ABC):
    """Text encoder of a family: its classes, tokenisation, and the outputs that condition the denoiser."""

    encoder_class: ClassVar[Any]
    tokenizer_class: ClassVar[Any]
    output_names: ClassVar[tuple[str, ...]]
    is_t5: ClassVar[bool] = False
    uses_last_layer: ClassVar[bool] = True
    """False if no output passes through the encoder's last layer, which then has nothing to learn."""

    def __init__(self, folder: str, tokenizer_folder: str, max_tokens: int | None = None) -> None:
        """Set the folders; `max_tokens` defaults to the tokenizer's maximum."""
        self.folder = folder
        self.tokenizer_folder = tokenizer_folder
        self.max_tokens = max_tokens

    @property
    def name(self) -> str:
        """Name for caches; every way to encode prompts with the same encoder has its own name."""
        return "-".join((type(self).__name__, *map(str, filter(None, (self.max_tokens,)))))

    def token_ids(self, tokenizer: Any, prompts: Sequence[str]) -> Tensor:
        """Tokenise prompts: (B, T) int64 ids, padded and cut to the encoder's length."""
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
        """Compute the outputs named in `output_names`, each (B, ...)."""


class Family(ABC):
    """Architecture of a base model folder. Only settings files are read; no weights are held."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder = folder
        self.layout = layout

    @property
    def name(self) -> str:
        return self.layout.name

    def settings(self, part: str) -> dict[str, Any]:
        """Read the `config.json` of one part.

        Raises:
            WeightsError: the file is missing or damaged.
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
        """Class of the stock diffusers pipeline."""

    @property
    @abstractmethod
    def scheduler_class(self) -> Any:
        """Scheduler class from which training and the default sampler read the noise schedule."""

    @cached_property
    @abstractmethod
    def text_parts(self) -> tuple[TextPart, ...]:
        """Text encoders of this base model."""

    @abstractmethod
    def objective(self, scheduler: Any) -> Objective:
        """Read the objective that the base was trained with from its scheduler."""

    @abstractmethod
    def conditioning(self, outputs: TextOutputs) -> dict[str, Tensor]:
        """Build the text conditioning under the argument names of the denoiser's `forward`, each (B, ...)."""

    @property
    def adapts_text(self) -> bool:
        """True if adapters of the text encoders can be trained."""
        return False

    @property
    def shows_framing(self) -> bool:
        """True if the denoiser is conditioned on the scaling and cropping of each image."""
        return False

    def image_conditioning(self, framing: Framing) -> dict[str, Tensor]:
        """Build the conditioning of one image, without batch dimension; most families have none."""
        return {}

    @abstractmethod
    def predict(
        self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]
    ) -> Tensor:
        """Run the denoiser: (B, C, h, w) noisy latents, (B,) network timesteps -> (B, C, h, w)."""

    @property
    def native_resolution(self) -> int:
        """Side of the images that the base was trained on, in pixels."""
        return native_resolution(self.folder, self.layout)

    @property
    @abstractmethod
    def side_multiple_px(self) -> int:
        """Divisor of valid image sides in pixels; the denoiser halves or packs the latents."""

    @property
    def latent_reduction(self) -> int:
        """Pixels per latent position along one side."""
        return latent_reduction(self.folder)

    @property
    def pipeline_extras(self) -> dict[str, Any]:
        """Further arguments of the stock pipeline's constructor."""
        return {}

    @abstractmethod
    def sampler(self, scheduler: Any, sampler: Sampler) -> Any:
        """Build the scheduler of a sampler from the base's scheduler."""

    @abstractmethod
    def restoring_schedule(self, scheduler: Any, fraction: float, steps: int) -> tuple[Any, Tensor]:
        """Build a deterministic sampler and its last `steps` timesteps, from `fraction` of the noise schedule on."""

    @abstractmethod
    def noised(self, scheduler: Any, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """Add noise to latents at the level of a timestep of the sampler from `restoring_schedule`."""

    def sampling_options(self, scheduler: Any) -> dict[str, Any]:
        """Return further arguments of the stock pipeline's `__call__`."""
        side_px = self.native_resolution
        return {"height": side_px, "width": side_px}

    @abstractmethod
    def pipeline_inputs(self, conditioning: Mapping[str, Tensor], negative: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename conditioning to the argument names of the stock pipeline's `__call__`."""

    def drawn_latents(self, latents: Tensor, height_px: int, width_px: int) -> Tensor:
        """Convert the stock pipeline's latents to (B, C, h, w)."""
        return latents

    @abstractmethod
    def kohya_name(self, layer: str) -> str:
        """Return the name of a denoiser layer in kohya's files, without the suffix of a tensor."""

    def kohya_slice(self, layer: str) -> LayerSlice:
        """Locate a low-rank update of a denoiser layer in kohya's files: a whole layer, or rows of a larger layer.

        Other kinds of update cannot be joined; their layers are named by `kohya_name`.
        """
        return LayerSlice(self.kohya_name(layer))

    def kohya_text_name(self, part: str, layer: str) -> str:
        """Return the name of a text encoder's layer in kohya's files.

        `text_encoder_2`, `encoder.layers.0.mlp.fc1` -> `lora_te2_text_model_encoder_layers_0_mlp_fc1`. With a single
        encoder the prefix has no number; T5 always has number 3.
        """
        encoder = next(text for text in self.text_parts if text.folder == part)
        number = 3 if encoder.is_t5 else self.text_parts.index(encoder) + 1
        prefix = "lora_te" if len(self.layout.text) == 1 else f"lora_te{number}"
        # In transformers, layers of CLIPTextModelWithProjection have the outer name, layers of CLIPTextModel do not.
        inner = (
            layer if encoder.is_t5 or layer.startswith(("text_model.", "text_projection")) else f"text_model.{layer}"
        )
        return f"{prefix}_{inner.replace('.', '_')}"

    kohya_module: ClassVar[str] = "networks.lora"
    """The module of sd-scripts that builds a plain LoRA of this family."""

    @abstractmethod
    def kohya_metadata(self, prediction: str) -> dict[str, str]:
        """Return the `ss_*` and `modelspec.*` entries by which tools choose their loader."""
