"""Tiny image models with random weights, built from configs."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    GPT2Config,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

WORDS = ("[PAD]", "[BOS]", "[SEP]", "[UNK]", *"a red blue green round square drawing of something on white".split())
_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 32,
    "patch_size": 8,
}


def classifier(folder: Path, seed: int = 0) -> Path:
    """Labels "safe" and "NSFW", told apart by chance but clearly."""
    torch.manual_seed(seed)
    labels = {0: "safe", 1: "NSFW"}
    model = ViTForImageClassification(ViTConfig(**_VIT, id2label=labels, label2id={"safe": 0, "NSFW": 1}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    model.save_pretrained(folder)
    _processor().save_pretrained(folder)
    return folder


def vision_encoder_decoder(folder: Path) -> Path:
    torch.manual_seed(0)
    text = GPT2Config(
        vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=64, add_cross_attention=True, is_decoder=True
    )
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**_VIT), text)
    model = VisionEncoderDecoderModel(config)
    model.generation_config.decoder_start_token_id = model.generation_config.bos_token_id = 1
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 2
    model.save_pretrained(folder)
    return _with_text(folder)


def blip(folder: Path) -> Path:
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = small | {
        "vocab_size": len(WORDS),
        "pad_token_id": 0,
        "bos_token_id": 1,
        "sep_token_id": 2,
        "eos_token_id": 2,
    }
    text |= {"encoder_hidden_size": 16, "max_position_embeddings": 64}
    vision = small | {"image_size": 32, "patch_size": 8}
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=16)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    return _with_text(folder)


def _with_text(folder: Path) -> Path:
    words = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    special = {
        "pad_token": "[PAD]",
        "bos_token": "[BOS]",
        "eos_token": "[SEP]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
    }
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    _processor().save_pretrained(folder)
    return folder


def _processor() -> ViTImageProcessorPil:
    return ViTImageProcessorPil(size={"height": 32, "width": 32})
