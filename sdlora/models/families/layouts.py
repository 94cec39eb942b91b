"""Layouts of the families' folders, and recognition of a folder's family; without heavy imports.

The family follows from `model_index.json` and, if two families share a pipeline, from the denoiser's settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sdlora.core.errors import WeightsError
from sdlora.core.foreign_json import parse_json
from sdlora.core.quoting import escaped, quoted

FamilyName = Literal["sd1", "sd2", "sdxl", "sd3", "flux"]
Targets = Literal["attention", "attention+ff", "all"]

_MAX_JSON_BYTES = 64 * 2**20  # the tokenizer of a T5 takes 2, of a large vocabulary 35 MB
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
_CONVOLUTIONS = ("proj_in", "proj_out", "conv1", "conv2", "conv_shortcut", "time_emb_proj")
_UNET_TARGETS: Mapping[Targets, tuple[str, ...]] = {
    "attention": _ATTENTION,
    "attention+ff": _ATTENTION + _FEED_FORWARD,
    "all": _ATTENTION + _FEED_FORWARD + _CONVOLUTIONS,
}
# Transformers attend to text and image together, with separate projections for the text ("add_", "context"). The
# modulation layers are left out: few trainers adapt them, and Stable Diffusion 3 orders their rows in two ways.
_JOINT_ATTENTION = (*_ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_JOINT_FEED_FORWARD = (*_FEED_FORWARD, "ff_context.net.0.proj", "ff_context.net.2")
_SD3_TARGETS: Mapping[Targets, tuple[str, ...]] = {
    "attention": _JOINT_ATTENTION,
    "attention+ff": _JOINT_ATTENTION + _JOINT_FEED_FORWARD,
    "all": _JOINT_ATTENTION + _JOINT_FEED_FORWARD,
}
_FLUX_FEED_FORWARD = (*_JOINT_FEED_FORWARD, "proj_mlp", "single_transformer_blocks.*.proj_out")
_FLUX_TARGETS: Mapping[Targets, tuple[str, ...]] = {
    "attention": _JOINT_ATTENTION,
    "attention+ff": _JOINT_ATTENTION + _FLUX_FEED_FORWARD,
    "all": _JOINT_ATTENTION + _FLUX_FEED_FORWARD,
}


@dataclass(frozen=True)
class TextFolders:
    """Folders of one text encoder; a base model may lack an optional text encoder."""

    encoder: str
    tokenizer: str
    optional: bool = False


@dataclass(frozen=True)
class Layout:
    """Folders of one family, by the names of diffusers.

    Attributes:
        name: short name of the family.
        title: full name of the family, for messages.
        pipeline: `_class_name` in `model_index.json`.
        denoiser: folder of the network that adapters attach to.
        denoiser_class: class of the denoiser in diffusers.
        text: folders of the text encoders.
        targets: ends of layer names for each value of `lora.targets`.
    """

    name: FamilyName
    title: str
    pipeline: str
    denoiser: str
    denoiser_class: str
    text: tuple[TextFolders, ...]
    targets: Mapping[Targets, tuple[str, ...]]

    @property
    def weights_stems(self) -> dict[str, str]:
        """File name, without suffix, of every part's weights, by folder."""
        stems = {self.denoiser: "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
        return stems | {folders.encoder: "model" for folders in self.text}

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders of a base model of this family."""
        text = [name for folders in self.text for name in (folders.encoder, folders.tokenizer)]
        return ("scheduler", "vae", self.denoiser, *text)

    def text_of(self, folder: Path) -> tuple[TextFolders, ...]:
        """Return the text encoders of a base model; `model_index.json` has null for an absent optional encoder."""
        index = read_json(folder / "model_index.json")
        return tuple(text for text in self.text if not text.optional or _is_named(index.get(text.encoder)))


_ONE_ENCODER = (TextFolders("text_encoder", "tokenizer"),)
_TWO_ENCODERS = (*_ONE_ENCODER, TextFolders("text_encoder_2", "tokenizer_2"))
LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="sd1",
        title="Stable Diffusion 1.x",
        pipeline="StableDiffusionPipeline",
        denoiser="unet",
        denoiser_class="UNet2DConditionModel",
        text=_ONE_ENCODER,
        targets=_UNET_TARGETS,
    ),
    Layout(
        name="sd2",
        title="Stable Diffusion 2.x",
        pipeline="StableDiffusionPipeline",
        denoiser="unet",
        denoiser_class="UNet2DConditionModel",
        text=_ONE_ENCODER,
        targets=_UNET_TARGETS,
    ),
    Layout(
        name="sdxl",
        title="Stable Diffusion XL",
        pipeline="StableDiffusionXLPipeline",
        denoiser="unet",
        denoiser_class="UNet2DConditionModel",
        text=_TWO_ENCODERS,
        targets=_UNET_TARGETS,
    ),
    Layout(
        name="sd3",
        title="Stable Diffusion 3",
        pipeline="StableDiffusion3Pipeline",
        denoiser="transformer",
        denoiser_class="SD3Transformer2DModel",
        text=(*_TWO_ENCODERS, TextFolders("text_encoder_3", "tokenizer_3", optional=True)),
        targets=_SD3_TARGETS,
    ),
    Layout(
        name="flux",
        title="FLUX.1",
        pipeline="FluxPipeline",
        denoiser="transformer",
        denoiser_class="FluxTransformer2DModel",
        text=_TWO_ENCODERS,
        targets=_FLUX_TARGETS,
    ),
)


def _is_named(entry: Any) -> bool:
    return isinstance(entry, list) and any(entry)  # ["transformers", "T5EncoderModel"], or [null, null]


def find_layout(folder: Path) -> Layout:
    """Recognise the layout of a diffusers folder.

    Raises:
        WeightsError: a settings file is missing or damaged, or no supported family has this pipeline.
    """
    index = folder / "model_index.json"
    pipeline = read_json(index).get("_class_name")
    matching = [layout for layout in LAYOUTS if layout.pipeline == pipeline]
    if not matching:
        raise WeightsError(
            f"base_model.source: {index} names the pipeline {quoted(pipeline)}, which is of no supported family; "
            f"supported: {', '.join(f'{layout.title} ({layout.pipeline})' for layout in LAYOUTS)}."
        )
    if len(matching) == 1:
        return matching[0]
    # The projections around the transformer blocks are linear in version 2 and 1x1 convolutions in version 1.
    linear = bool(read_json(folder / "unet" / "config.json").get("use_linear_projection"))
    return next(layout for layout in matching if layout.name == ("sd2" if linear else "sd1"))


def targets_of(denoiser_class: str, targets: Targets) -> tuple[str, ...]:
    """Return the ends of layer names that `lora.targets` selects in a denoiser of this class.

    Raises:
        WeightsError: no supported family has such a denoiser.
    """
    for layout in LAYOUTS:
        if layout.denoiser_class == denoiser_class:
            return layout.targets[targets]
    supported = sorted({layout.denoiser_class for layout in LAYOUTS})
    raise WeightsError(f"{denoiser_class} is the denoiser of no supported family; supported: {', '.join(supported)}.")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        WeightsError: the file is missing or is not a JSON object.
    """
    try:
        with path.open("rb") as file:
            value = parse_json(file.read(_MAX_JSON_BYTES + 1), _MAX_JSON_BYTES)
    except FileNotFoundError as error:
        raise WeightsError(
            f"base_model.source: {path} is missing; expected a Stable Diffusion folder as diffusers saves it."
        ) from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"base_model.source: {path} is damaged ({escaped(error)}). Copy the file again.") from error
    if not isinstance(value, dict):
        raise WeightsError(f"base_model.source: {path} is damaged (not a JSON object). Copy the file again.")
    return value
