"""Tiny real models and images for tests: the shapes of Stable Diffusion, random weights, no network."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw

from sdlora.pretraining.autoencoder import build_autoencoder
from sdlora.pretraining.config import AutoencoderConfig, PretrainConfig, TextEncoderConfig, UNetConfig
from sdlora.pretraining.text_encoder import build_text_encoder
from sdlora.pretraining.tokenizer import train_tokenizer
from sdlora.pretraining.unet import build_scheduler, build_unet

TINY = PretrainConfig(
    autoencoder=AutoencoderConfig(steps=2, batch_size=2, block_out_channels=(8, 8, 16)),
    text_encoder=TextEncoderConfig(
        steps=2, batch_size=4, vocabulary_size=600, max_tokens=32, hidden_size=16, layers=1, heads=2
    ),
    unet=UNetConfig(steps=2, batch_size=2, block_out_channels=(8, 16, 16), heads=2),
)
SHAPES = ("circle", "square", "triangle", "cross", "ring", "bar")
COLOURS = ("red", "green", "blue", "orange", "purple", "black")


def tiny_base_model(folder: Path, seed: int = 0) -> Path:
    """Save an untrained Stable Diffusion of about 100,000 parameters (64x64, velocity) as a diffusers folder."""
    torch.manual_seed(seed)
    tokenizer = train_tokenizer([f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES], 600, 32)
    pipeline = StableDiffusionPipeline(
        vae=build_autoencoder(TINY).eval(),
        text_encoder=build_text_encoder(TINY, tokenizer).eval(),
        tokenizer=tokenizer,
        unet=build_unet(TINY).eval(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def draw_images(folder: Path, count: int, seed: int = 0) -> Path:
    """Draw distinct 64 px pictures of coloured shapes, captioned in `metadata.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for index in range(count):
        background, *marks = torch.randint(0, 256, (8, 3), generator=generator).tolist()
        image = Image.new("RGB", (64, 64), tuple(background))
        draw = ImageDraw.Draw(image)
        for mark in marks:
            left, top, width, height = torch.randint(4, 56, (4,), generator=generator).tolist()
            box = (left, top, min(63, left + width), min(63, top + height))
            (draw.ellipse if width % 2 else draw.rectangle)(box, fill=tuple(mark))
        name = f"{seed}-{index:04d}.png"
        image.save(folder / name)
        colour, shape = COLOURS[index % len(COLOURS)], SHAPES[index // len(COLOURS) % len(SHAPES)]
        rows.append({"file_name": name, "text": f"a {colour} {shape}"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
