"""Pretraining stages in order: tokenizer, autoencoder, text encoder, UNet, decoder; then a diffusers folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from sdlora.core.errors import DataError
from sdlora.core.files import written_aside
from sdlora.models.files.digests import record_digests
from sdlora.pretraining.autoencoder import encode_images, train_autoencoder
from sdlora.pretraining.config import PretrainConfig
from sdlora.pretraining.decoder import train_decoder
from sdlora.pretraining.forget import MODEL_FOLDER, STAGES_FOLDER
from sdlora.pretraining.loop import Stage, make_accelerator
from sdlora.pretraining.text_encoder import train_text_encoder
from sdlora.pretraining.tokenizer import train_tokenizer
from sdlora.pretraining.unet import build_scheduler, train_unet

OnStageMetrics = Callable[[str, int, Mapping[str, float]], None]
"""Called as (stage, step, values)."""


def pretrain(
    images_uint8: Tensor,
    captions: Sequence[Sequence[str]],
    config: PretrainConfig,
    folder: Path,
    on_metrics: OnStageMetrics | None = None,
) -> Path:
    """Train a Stable Diffusion from random weights; a stopped run continues from its last checkpoint.

    Args:
        images_uint8: (N, 3, S, S) training images, S = `config.resolution`.
        captions: one or more captions for each image; each visit of an image draws one caption.
        config: settings of all stages.
        folder: folder of the stages' checkpoints and of the result, `model/`.
        on_metrics: called with the stage, the step and the values.
    Returns:
        `folder/model`, a folder that `StableDiffusionPipeline.from_pretrained` loads (fp16 safetensors).
    Raises:
        DataError: there are no images, or an image has no caption.
        TrainingError: the loss of a stage is not finite.
    """
    if len(images_uint8) == 0 or len(images_uint8) != len(captions) or not all(captions):
        raise DataError(
            f"pretraining needs images with captions: found {len(images_uint8)} images and "
            f"{sum(map(bool, captions))} with a caption. Collect images with captions first."
        )
    accelerator = make_accelerator()

    def stage(folder_name: str, name: str) -> Stage:
        def report(step: int, values: Mapping[str, float]) -> None:
            if on_metrics:
                on_metrics(name, step, values)

        return Stage(accelerator, folder / STAGES_FOLDER / folder_name, report)

    texts = [text for row in captions for text in row]
    tokenizer = train_tokenizer(texts, config.text_encoder.vocabulary_size, config.text_encoder.max_tokens)
    vae = train_autoencoder(stage("autoencoder", "autoencoder"), images_uint8, config)
    text_encoder = train_text_encoder(stage("text_encoder", "text encoder"), tokenizer, images_uint8, captions, config)
    latents = encode_images(vae, images_uint8)
    denoiser = train_unet(stage("unet", "unet"), tokenizer, text_encoder, latents, captions, config)
    vae = train_decoder(stage("decoder", "decoder"), vae, images_uint8, config)
    if accelerator.is_main_process:
        save_pipeline(folder / MODEL_FOLDER, vae, denoiser.text_encoder, tokenizer, denoiser.unet)
    accelerator.wait_for_everyone()
    return folder / MODEL_FOLDER


def save_pipeline(
    folder: Path,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
) -> None:
    """Write the parts as a Stable Diffusion folder in half precision, atomically."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with written_aside(folder) as partial:
        pipeline.to(dtype=torch.float16).save_pretrained(partial, safe_serialization=True)
        # transformers loads a model in the precision of its config, diffusers in single precision. Without this line a
        # plain from_pretrained would mix both precisions and fail at the first matrix product.
        settings_file = partial / "text_encoder" / "config.json"
        settings_file.write_text(json.dumps(json.loads(settings_file.read_text()) | {"dtype": "float32"}, indent=2))
        record_digests(partial)
