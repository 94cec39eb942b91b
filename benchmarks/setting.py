"""Inputs of the trainer's benchmarks: pictures drawn from a seed, and a base in the shape of Stable Diffusion 1.5."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sdlora.core.refs import BaseModelRef
from sdlora.data.snapshot import Snapshot, SnapshotRow, snapshot_digest
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.pretraining.unet import build_scheduler
from sdlora.store.image_store import ImageStore

# runwayml/stable-diffusion-v1-5, unet/config.json: 860 million parameters.
SD15_UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "norm_num_groups": 32,
}


def sd15_shaped_base(folder: Path, home: Path, latent_side: int) -> BaseModelRef:
    """A base with Stable Diffusion 1.5's denoiser, random weights, and tiny encoders that only feed it."""
    if not folder.is_dir():
        torch.manual_seed(0)
        tokenizer = CLIPTokenizer.from_pretrained(load_base_model(BaseModelConfig(), home).folder / "tokenizer")
        text = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=768,
            intermediate_size=768,
            num_hidden_layers=1,
            num_attention_heads=12,
            max_position_embeddings=tokenizer.model_max_length,
        )
        pipeline = StableDiffusionPipeline(
            vae=AutoencoderKL(
                block_out_channels=(8, 8, 8, 8),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                latent_channels=4,
                norm_num_groups=4,
                sample_size=8 * latent_side,
            ),
            text_encoder=CLIPTextModel(text),
            tokenizer=tokenizer,
            unet=UNet2DConditionModel(**SD15_UNET, sample_size=latent_side).half(),
            scheduler=build_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        pipeline.save_pretrained(partial, safe_serialization=True)
        partial.rename(folder)
    return load_base_model(BaseModelConfig(source=str(folder)), home)


def fill_store(home: Path, count: int, side_px: int = 64) -> Snapshot:
    """Put `count` different captioned pictures of blocks of colour into a new store, the last tenth held out."""
    random = np.random.default_rng(0)
    rows = []
    with ImageStore.open(home) as store:
        for index in range(count):
            blocks = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            file = io.BytesIO()
            Image.fromarray(blocks).resize((side_px, side_px), Image.Resampling.BICUBIC).save(file, "PNG")
            captions = (f"an emoji of pattern {index % 500}",)
            sha256 = store.dataset("icons").add_image(file.getvalue(), captions)
            rows.append([sha256, captions, "held_out" if index >= count * 9 // 10 else "train"])
    (home / "rows.json").write_text(json.dumps(rows))
    return read_snapshot(home)


def read_snapshot(home: Path) -> Snapshot:
    """The images of a store that `fill_store` made, without looking through the store."""
    rows = sorted(json.loads((home / "rows.json").read_text()))
    made = tuple(SnapshotRow(sha256, tuple(captions), split) for sha256, captions, split in rows)
    return Snapshot(snapshot_digest(made), made)
