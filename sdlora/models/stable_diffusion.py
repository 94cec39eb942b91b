"""Stable Diffusion model that generates images: init_model(), load_weights(), generate_image()."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from sdlora.core.errors import WeightsError
from sdlora.core.files import file_sha256
from sdlora.core.progress import OnProgress
from sdlora.core.refs import ADAPTER_WEIGHTS, RESTORE_ADAPTER, AdapterRef, BaseModelRef, Precision
from sdlora.models import parts
from sdlora.models.adapter_check import check_against_base
from sdlora.models.adapter_file import AdapterPart
from sdlora.models.adapter_weights import attach_adapter_file, merge_attached, merge_text_adapters
from sdlora.models.encode import decode_latents, encode_text
from sdlora.models.families import family_of
from sdlora.models.families.base import Family, Sampler
from sdlora.models.files.sources import verify
from sdlora.models.outline import checked_outline
from sdlora.models.precision import autocast, probe_precision


class StableDiffusion:
    """Base model, with or without a merged adapter.

    The parts are ordinary diffusers and transformers objects and may be used directly. They are `denoiser` (a U-Net
    or a transformer), `autoencoder`, `scheduler`, and, by folder name, `text_encoders` and `tokenizers`.
    """

    family: Family
    tokenizers: dict[str, Any]
    text_encoders: dict[str, nn.Module]
    autoencoder: AutoencoderKL
    denoiser: Any
    scheduler: Any

    def __init__(self, ref: BaseModelRef, device: str | None = None, precision: Precision | None = None) -> None:
        """Create a model without reading any file.

        Args:
            ref: reference from `load_base_model`.
            device: by default "cuda" if there is a GPU, else "cpu".
            precision: arithmetic of the denoiser; by default the fastest on this processor.
        """
        self.ref = ref
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.precision = precision
        self._has_weights = False

    @classmethod
    def from_ref(
        cls,
        ref: BaseModelRef,
        adapter: AdapterRef | None = None,
        device: str | None = None,
        precision: Precision | None = None,
    ) -> StableDiffusion:
        """Create a model and load its weights."""
        model = cls(ref, device, precision)
        model.load_weights(adapter)
        return model

    @classmethod
    def from_parts(
        cls,
        ref: BaseModelRef,
        denoiser: nn.Module,
        precision: Precision | None = None,
        text_encoders: Mapping[str, nn.Module] | None = None,
    ) -> StableDiffusion:
        """Create a model from loaded parts, such as parts in training, and load the missing parts."""
        model = cls(ref, str(next(denoiser.parameters()).device), precision)
        model._load_settings()
        model._load_encoders(text_encoders)
        model.denoiser = denoiser
        model._has_weights = True
        return model

    def init_model(self) -> StableDiffusion:
        """Build all parts from the base's settings with random weights, to train from scratch.

        Raises:
            WeightsError: a settings file is missing or damaged, or describes a larger network than the base's.
        """
        self._load_settings()
        folder, family = self.ref.folder, self.family
        classes = {family.layout.denoiser: family.denoiser_class, "vae": AutoencoderKL}
        for name, part_class in (classes | {part.folder: part.encoder_class for part in family.text_parts}).items():
            checked_outline(part_class, folder, name)
        self.text_encoders = {}
        for part in self.family.text_parts:
            config = part.encoder_class.config_class(**self.family.settings(part.folder))
            self.text_encoders[part.folder] = part.encoder_class(config).to(self.device).eval()
        denoiser = self.family.denoiser_class.from_config(self.family.denoiser_settings)
        self.denoiser = denoiser.to(self.device).eval()
        autoencoder = AutoencoderKL.from_config(self.family.settings("vae"))
        self.autoencoder = autoencoder.to(self.device).eval()
        self._has_weights = True
        return self

    def load_weights(self, adapter: AdapterRef | None = None) -> StableDiffusion:
        """Fill all parts with the base's weights and merge the adapter, if one is given.

        Raises:
            WeightsError: the base's files do not match its digest, a file is damaged, or the adapter was
                trained on another base model.
        """
        verify(self.ref)
        if adapter is not None:
            check_adapter(adapter, self.ref)
        self._load_settings()
        self._load_encoders()
        self.denoiser = parts.load_denoiser(self.ref, self.device)
        self._has_weights = True
        if adapter is not None:
            self._merge(adapter)
        return self

    def generate_image(
        self,
        prompt: str,
        *,
        seed: int = 0,
        steps: int = 20,
        guidance_scale: float = 4.0,
        negative_prompt: str = "",
        sampler: Sampler = "ddim",
    ) -> Image.Image:
        """Generate one image; the same arguments give the same image."""
        images = self.generate(
            [prompt],
            [seed],
            steps=steps,
            guidance_scale=guidance_scale,
            negative_prompt=negative_prompt,
            sampler=sampler,
        )
        return Image.fromarray(images[0].permute(1, 2, 0).numpy())

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int = 20,
        guidance_scale: float = 4.0,
        negative_prompt: str = "",
        sampler: Sampler = "ddim",
        batch_size: int = 16,
        on_progress: OnProgress | None = None,
    ) -> Tensor:
        """Generate one image per prompt and seed.

        The noise of an image comes from its own seed. Other images of the batch affect it only by the rounding of
        differently shaped matrix products.

        There are eight parameters, because diffusers' own pipelines take as many, one by one.

        Returns:
            (N, 3, H, W) uint8.
        Raises:
            ValueError: there are no prompts, or not one seed per prompt.
            WeightsError: the model has no weights; call `init_model` or `load_weights` first.
        """
        if not prompts or len(prompts) != len(seeds):
            raise ValueError(f"one seed per prompt is needed, got {len(prompts)} prompts and {len(seeds)} seeds.")
        pipeline = self.pipeline(sampler)
        options = self.family.sampling_options(self.scheduler)
        chunks = [slice(start, start + batch_size) for start in range(0, len(prompts), batch_size)]
        images = []
        for number, chunk in enumerate(chunks):

            def report(step: int, done: int = number * steps) -> None:
                if on_progress:
                    on_progress("draw images", done + step + 1, len(chunks) * steps)

            conditioning = self.encode_prompts(prompts[chunk])
            negative = {
                name: tensor.expand_as(conditioning[name])
                for name, tensor in self.encode_prompts([negative_prompt]).items()
            }
            latents = self._sample(
                pipeline,
                report,
                **self.family.pipeline_inputs(conditioning, negative),
                **options,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds[chunk]],
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
            )
            latents = self.family.drawn_latents(latents, options["height"], options["width"])
            images.append(decode_latents(self.autoencoder, latents))
        return torch.cat(images)

    def pipeline(self, sampler: Sampler = "ddim") -> Any:
        """Build the stock diffusers pipeline around the parts; the weights are shared.

        Raises:
            WeightsError: the model has no weights; call `init_model` or `load_weights` first.
        """
        if not self._has_weights:
            raise WeightsError(f"The base model {self.ref.name} has no weights: call load_weights() first.")
        family = self.family
        pipeline = family.pipeline_class(
            vae=self.autoencoder,
            scheduler=family.sampler(self.scheduler, sampler),
            **{family.layout.denoiser: self.denoiser},
            **{text.encoder: self.text_encoders.get(text.encoder) for text in family.layout.text},
            **{text.tokenizer: self.tokenizers.get(text.tokenizer) for text in family.layout.text},
            **family.pipeline_extras,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Encode prompts to the denoiser's conditioning by name, each (N, ...) on the model's device."""
        outputs = {
            part.folder: encode_text(
                part, self.tokenizers[part.tokenizer_folder], self.text_encoders[part.folder], prompts
            )
            for part in self.family.text_parts
        }
        return {name: tensor.to(self.device) for name, tensor in self.family.conditioning(outputs).items()}

    def _load_settings(self) -> None:
        self.family = family_of(self.ref.folder)
        self.scheduler = parts.load_scheduler(self.ref)
        self.tokenizers = {
            part.tokenizer_folder: parts.load_tokenizer(self.ref, part) for part in self.family.text_parts
        }

    def _load_encoders(self, text_encoders: Mapping[str, nn.Module] | None = None) -> None:
        self.text_encoders = dict(text_encoders or {}) or {
            part.folder: parts.load_text_encoder(self.ref, part, self.device) for part in self.family.text_parts
        }
        self.autoencoder = parts.load_autoencoder(self.ref, self.device)

    def _sample(self, pipeline: Any, report: Callable[[int], None], **inputs: Any) -> Tensor:
        def on_step(_pipeline: Any, step: int, _timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            report(step)
            return kwargs

        precision = self.precision or probe_precision(self.device.type).precision
        # DPM++ computes in the precision of the network's output, so the output is converted to fp32.
        hook = self.denoiser.register_forward_hook(lambda _module, _inputs, output: (output[0].float(),))
        try:
            with autocast(self.device.type, precision):
                latents: Tensor = pipeline(**inputs, output_type="latent", callback_on_step_end=on_step).images
        finally:
            hook.remove()
        return latents

    def _merge(self, adapter: AdapterRef) -> None:
        # A step with a merged adapter costs as much as a step of the base. diffusers reads the file as users do.
        attach_adapter_file(self.denoiser, adapter.folder, self.family.layout.denoiser)
        merge_attached(self.denoiser)
        merge_text_adapters(self.text_encoders, adapter.folder)


def check_adapter(adapter: AdapterRef, base: BaseModelRef) -> dict[str, AdapterPart]:
    """Check that an adapter belongs to the base model, and that its weights match its digest and the base's layers.

    Returns:
        The parts of the adapter, by the part's folder in the base model.
    Raises:
        WeightsError: the adapter belongs to another base model, or its file is missing, changed or wrong.
    """
    if adapter.base_digest != base.digest:
        raise WeightsError(
            f"The adapter {adapter.digest[:12]} was trained on the base model {adapter.base_digest[:12]}, "
            f"not on {base.name} ({base.digest[:12]}). Choose that base model, or train an adapter for this one."
        )
    path = adapter.folder / ADAPTER_WEIGHTS
    if not path.is_file():
        raise WeightsError(f"The adapter's weights {path} are missing. {RESTORE_ADAPTER}")
    if file_sha256(path) != adapter.digest:
        raise WeightsError(f"{path} is damaged: its SHA-256 is not {adapter.digest[:12]}. {RESTORE_ADAPTER}")
    return check_against_base(path, base.folder)
