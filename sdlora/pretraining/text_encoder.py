"""Text encoder stage: contrastive pretraining (Radford et al. 2021, arXiv:2103.00020).

Each caption learns to find the features of its image among the features of the batch. The denoiser then starts with
embeddings that differ where the images differ. The effect on the denoiser was not measured (docs/experiments.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sdlora.diffusion.seeds import step_generator
from sdlora.models.features import FEATURE_DIM, ImageFeatures
from sdlora.pretraining.config import PretrainConfig
from sdlora.pretraining.loop import Stage, autocast, train_stage


def build_text_encoder(config: PretrainConfig, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Build an untrained CLIP text model of the configured size."""
    settings = config.text_encoder
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden_size,
            intermediate_size=4 * settings.hidden_size,
            projection_dim=settings.hidden_size,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            max_position_embeddings=settings.max_tokens,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            # At these sizes plain attention is faster than the fused kernel on CPUs (measured: 17 against 50 ms).
            attn_implementation="eager",
        )
    )


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Tokenise captions: (N, T) ids, padded and cut to the tokenizer's length."""
    token_ids: Tensor = tokenizer(
        list(captions),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    return token_ids


class CaptionMatcher(nn.Module):
    """Text encoder with linear maps of text and image features to one space: (B, B) logits, text by image."""

    def __init__(self, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        width = text_encoder.config.hidden_size
        self.text_encoder = text_encoder
        self.text_projection = nn.Linear(width, width, bias=False)
        self.image_projection = nn.Linear(FEATURE_DIM, width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, token_ids: Tensor, image_features: Tensor) -> Tensor:
        text = self.text_projection(self.text_encoder(token_ids).pooler_output)
        image = self.image_projection(image_features)
        text, image = nn.functional.normalize(text.float(), dim=-1), nn.functional.normalize(image.float(), dim=-1)
        return self.log_scale.clamp(max=math.log(100)).exp() * text @ image.T


def train_text_encoder(
    stage: Stage,
    tokenizer: CLIPTokenizer,
    images_uint8: Tensor,
    captions: Sequence[Sequence[str]],
    config: PretrainConfig,
) -> CLIPTextModel:
    """Train on (N, 3, S, S) uint8 images, each with one or more captions."""
    accelerator = stage.accelerator
    torch.manual_seed(config.seed + 1)
    settings = config.text_encoder

    @cache  # on the first step only: a finished stage that is passed through again needs none
    def features() -> Tensor:
        return _features(images_uint8)

    tokens = [tokenize(tokenizer, texts) for texts in captions]
    model = CaptionMatcher(build_text_encoder(config, tokenizer)).to(accelerator.device)
    wrapped = accelerator.prepare(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(config.seed, step, f"text-encoder-{accelerator.process_index}")
        count = min(settings.batch_size // accelerator.num_processes, len(tokens))
        indices = torch.randperm(len(tokens), generator=generator)[:count]
        rows = [tokens[i][torch.randint(len(tokens[i]), (), generator=generator)] for i in indices.tolist()]
        token_ids = torch.stack(rows).to(accelerator.device)
        with autocast(accelerator.device):
            logits = wrapped(token_ids, features()[indices].to(accelerator.device))
        # Rows with equal captions ("an emoji of red apple" in two styles) all count as correct.
        same_caption = (token_ids[:, None] == token_ids[None]).all(-1).float()
        target = same_caption / same_caption.sum(1, keepdim=True)
        by_text = nn.functional.cross_entropy(logits, target)
        by_image = nn.functional.cross_entropy(logits.T, target)
        text_accuracy = same_caption.gather(1, logits.argmax(1, keepdim=True)).mean()
        return (by_text + by_image) / 2, {"contrastive_loss": by_text.item(), "text_finds_image": text_accuracy.item()}

    trained = train_stage(stage, model, optimizer, loss_of_step, settings)
    assert isinstance(trained, CaptionMatcher)
    return trained.text_encoder


def _features(images_uint8: Tensor) -> Tensor:
    network = ImageFeatures()
    features = torch.cat([network(chunk) for chunk in images_uint8.split(64)])
    # Standardise each feature: a few large features dominate the raw pooled features.
    return (features - features.mean(0)) / (features.std(0) + 1e-3)
