"""Tiny base models of every family: the settings of the published models with fewer and narrower layers.

Depth, widths and vocabulary are reduced; what tells the families apart is as published. All draw 64 x 64.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from sdlora.pretraining.tokenizer import train_tokenizer
from tests.tiny import COLOURS, SHAPES

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def clip_tokenizer() -> CLIPTokenizer:
    return train_tokenizer([f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES], 600, 77)


def t5_tokenizer() -> T5Tokenizer:
    """A unigram vocabulary of letters and a few words, with T5's special tokens."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz", *(f"▁{word}" for word in COLOURS + SHAPES)]
    return T5Tokenizer(vocab=[(piece, -float(rank)) for rank, piece in enumerate(pieces)], extra_ids=0)


def clip(
    tokenizer: CLIPTokenizer, act: str, projected: bool = False, layers: int = 2, width: int = 32
) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act=act,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def t5(tokenizer: T5Tokenizer, width: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        tie_word_embeddings=False,
    )
    return T5EncoderModel(config).eval()


def autoencoder(latent_channels: int, scaling: float, shift: float | None = None) -> AutoencoderKL:
    flow = shift is not None
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=scaling,
        shift_factor=shift,
        use_quant_conv=not flow,
        use_post_quant_conv=not flow,
    ).eval()


def unet_of_version_2() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32, 32, 32),
        attention_head_dim=(1, 2, 4, 4),
        layers_per_block=1,
        cross_attention_dim=32,
        norm_num_groups=8,
        use_linear_projection=True,
    ).eval()


def unet_of_xl(levels: int = 3) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32, 32)[:levels],
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")[:levels],
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")[-levels:],
        attention_head_dim=(1, 2, 4)[:levels],
        layers_per_block=2,
        transformer_layers_per_block=(1, 1, 2)[:levels],
        cross_attention_dim=32 + 48,
        norm_num_groups=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 48,
    ).eval()


def sd2(folder: Path, *, zero_snr: bool = True) -> Path:
    """Version 2.1's velocity edition; with zero terminal SNR, as its later fine-tunings have it."""
    tokenizer = clip_tokenizer()
    terminal = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if zero_snr else {}
    pipeline = StableDiffusionPipeline(
        vae=autoencoder(4, 0.18215),
        text_encoder=clip(tokenizer, "gelu"),
        tokenizer=tokenizer,
        unet=unet_of_version_2(),
        scheduler=DDIMScheduler(
            **BETAS,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type="v_prediction",
            **terminal,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def sdxl(folder: Path, *, shallow: bool = False) -> Path:
    tokenizer = clip_tokenizer()
    pipeline = StableDiffusionXLPipeline(
        vae=autoencoder(4, 0.13025),
        text_encoder=clip(tokenizer, "quick_gelu"),
        text_encoder_2=clip(tokenizer, "gelu", projected=True, width=48),  # diffusers tells the two by width
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet_of_xl(2 if shallow else 3),
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1),
    )
    pipeline.save_pretrained(folder)
    return folder


def sd3(folder: Path, *, with_t5: bool = True) -> Path:
    """Version 3.5 medium: attention twice in its first layers, normalised queries and keys."""
    tokenizer = clip_tokenizer()
    words = t5_tokenizer() if with_t5 else None
    first = clip(tokenizer, "quick_gelu", projected=True)
    # The published checkpoints leave CLIP-L's projection out; it is read as doing nothing.
    first.text_projection.weight.data = torch.eye(32)
    pipeline = StableDiffusion3Pipeline(
        vae=autoencoder(16, 1.5305, 0.0609),
        text_encoder=first,
        text_encoder_2=clip(tokenizer, "gelu", projected=True, width=48),
        text_encoder_3=t5(words, 80) if words else None,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=words,
        transformer=SD3Transformer2DModel(
            sample_size=8,
            num_layers=3,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=80,
            caption_projection_dim=32,
            pooled_projection_dim=32 + 48,
            pos_embed_max_size=16,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    pipeline.save_pretrained(folder)
    return folder


def flux(folder: Path, *, dev: bool = True) -> Path:
    tokenizer, words = clip_tokenizer(), t5_tokenizer()
    pipeline = FluxPipeline(
        vae=autoencoder(16, 0.3611, 0.1159),
        text_encoder=clip(tokenizer, "quick_gelu"),
        text_encoder_2=t5(words, 48),
        tokenizer=tokenizer,
        tokenizer_2=words,
        transformer=FluxTransformer2DModel(
            in_channels=64,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=48,
            pooled_projection_dim=32,
            guidance_embeds=dev,
            axes_dims_rope=(4, 6, 6),
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0 if dev else 1.0, use_dynamic_shifting=dev, max_image_seq_len=16, base_image_seq_len=4
        ),
    )
    pipeline.save_pretrained(folder)
    return folder


BUILDERS: dict[str, Callable[[Path], Path]] = {"sd2": sd2, "sdxl": sdxl, "sd3": sd3, "flux": flux}


def build(name: str, folder: Path, seed: int = 0, **options: bool) -> Path:
    """Save an untrained base model of the family, with tensors large enough to matter in what it draws."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BUILDERS[name](folder, **options)
