"""Check that the parts of a base model fit together, by the widths in their settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sdlora.core.errors import WeightsError
from sdlora.models.families.layouts import FamilyName, Layout, read_json

Settings = dict[str, dict[str, Any]]
Widths = Iterator[tuple[str, int, str, int]]
"""(name of a width, its value, name of the width that another part expects, its value)."""


def check_widths(folder: Path, layout: Layout) -> None:
    """Compare the widths that the denoiser expects with the widths of text encoders and autoencoder.

    Raises:
        WeightsError: two parts belong to different models, or the denoiser's edition is not supported.
    """
    parts = ("vae", layout.denoiser, *(text.encoder for text in layout.text_of(folder)))
    settings = {part: read_json(folder / part / "config.json") for part in parts}
    try:
        for width_name, width, expected_name, expected_width in _WIDTH_PAIRS[layout.name](settings):
            if width != expected_width:
                raise WeightsError(
                    f"base_model.source: the parts of {folder} do not belong together: {width_name} is {width}, but "
                    f"{expected_name} is {expected_width} (read as {layout.title}). Take all parts from one model."
                )
    except (KeyError, TypeError) as error:
        raise WeightsError(
            f"base_model.source: a config.json in {folder} lacks {error}, which {layout.title} has. "
            "Copy the model folder again."
        ) from error


def _latent_channels(vae: dict[str, Any], denoiser: dict[str, Any], packed: int = 1) -> tuple[str, int, str, int]:
    # The comparison also refuses inpainting editions of the U-Nets, which take more channels than the latents have.
    times = f" times {packed}" if packed > 1 else ""
    return f"vae latent_channels{times}", vae["latent_channels"] * packed, "in_channels", denoiser["in_channels"]


def _unet(settings: Settings) -> Widths:
    unet = settings["unet"]
    yield _latent_channels(settings["vae"], unet)
    encoders = [settings[part] for part in ("text_encoder", "text_encoder_2") if part in settings]
    widths = sum(encoder["hidden_size"] for encoder in encoders)
    yield "the text encoders' hidden_size", widths, "unet cross_attention_dim", unet["cross_attention_dim"]


def _sdxl(settings: Settings) -> Widths:
    yield from _unet(settings)
    unet = settings["unet"]
    pooled = unet["projection_class_embeddings_input_dim"] - 6 * unet["addition_time_embed_dim"]
    yield (
        "text_encoder_2 projection_dim",
        settings["text_encoder_2"]["projection_dim"],
        "the unet's share of pooled text in projection_class_embeddings_input_dim",
        pooled,
    )


def _sd3(settings: Settings) -> Widths:
    transformer, clip_l, clip_g = (settings[part] for part in ("transformer", "text_encoder", "text_encoder_2"))
    yield _latent_channels(settings["vae"], transformer)
    pooled = clip_l["projection_dim"] + clip_g["projection_dim"]
    yield (
        "the two projection_dim of the text encoders",
        pooled,
        "pooled_projection_dim",
        transformer["pooled_projection_dim"],
    )
    if "text_encoder_3" in settings:
        width = settings["text_encoder_3"]["d_model"]
        yield "text_encoder_3 d_model", width, "joint_attention_dim", transformer["joint_attention_dim"]


def _flux(settings: Settings) -> Widths:
    transformer = settings["transformer"]
    yield _latent_channels(settings["vae"], transformer, packed=4)
    pooled = settings["text_encoder"]["hidden_size"]
    yield "text_encoder hidden_size", pooled, "pooled_projection_dim", transformer["pooled_projection_dim"]
    width = settings["text_encoder_2"]["d_model"]
    yield "text_encoder_2 d_model", width, "joint_attention_dim", transformer["joint_attention_dim"]


_WIDTH_PAIRS: dict[FamilyName, Callable[[Settings], Widths]] = {
    "sd1": _unet,
    "sd2": _unet,
    "sdxl": _sdxl,
    "sd3": _sd3,
    "flux": _flux,
}
