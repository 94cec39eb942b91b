"""What ComfyUI makes of our files, by its own rules written anew, against the merged model in its original form."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from sdlora.lora.attach import attach_lora
from sdlora.lora.formats.joining import join
from sdlora.lora.load import merge
from sdlora.lora.updates import LowRankUpdate
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.families.dit_names import flux_slice
from sdlora.models.files.sources import load_base_model
from tests import comfyui, families
from tests.original import denoiser_rows, flux_tensors, original_weights
from tests.settings import filled_lora
from tests.tiny import tiny_base_model
from tests.unit.lora.perturb import perturb_adapter
from tests.unit.lora.test_files import save

NAMES = ["sd1", *families.BUILDERS]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    home = tmp_path_factory.mktemp("families")
    folders = {name: families.build(name, home / name) for name in families.BUILDERS}
    folders["sd1"] = tiny_base_model(home / "sd1")
    return {name: load_base_model(BaseModelConfig(source=str(folder)), home) for name, folder in folders.items()}


def trained(base, folder, config):
    """An adapter's folder, the bare denoiser, and what merging adds to each weight of the original code base."""
    denoiser = parts.load_denoiser(base)
    before = original_weights(denoiser)
    perturb_adapter(attach_lora(denoiser, config))
    adapter = save(folder, denoiser, config, base)
    after = original_weights(merge(denoiser))
    changes = {key: after[key] - before[key] for key in before}
    return adapter.folder, denoiser, {key: change for key, change in changes.items() if change.abs().max() > 0}


def assert_same(reading, changes):
    assert reading.not_loaded == []
    assert reading.changes.keys() == changes.keys()
    for key, change in changes.items():
        torch.testing.assert_close(reading.changes[key], change, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_comfyui_adds_to_every_layer_what_was_trained(name, bases, tmp_path):
    folder, denoiser, changes = trained(bases[name], tmp_path / "adapter", filled_lora(rank=2, alpha=3))
    assert len(changes) >= 20
    assert_same(comfyui.read(folder / "style.safetensors", denoiser), changes)


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_joined_layers_of_which_a_part_is_adapted_leave_the_other_rows_alone(name, bases, tmp_path):
    config = filled_lora(rank=2, target_modules=("to_k", "add_v_proj"))
    folder, denoiser, changes = trained(bases[name], tmp_path / "adapter", config)
    assert all("qkv" in key or "linear1" in key for key in changes)
    assert_same(comfyui.read(folder / "style.safetensors", denoiser), changes)


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_comfyui_reads_the_diffusers_file_of_a_transformer_too(name, bases, tmp_path):
    folder, denoiser, changes = trained(bases[name], tmp_path / "adapter", filled_lora(rank=2))
    assert_same(comfyui.read(folder / "pytorch_lora_weights.safetensors", denoiser), changes)


def test_comfyui_ignores_alpha_of_the_diffusers_file(bases, tmp_path):
    """Why the note in an adapter's folder names the kohya file for ComfyUI."""
    folder, denoiser, changes = trained(bases["flux"], tmp_path / "adapter", filled_lora(rank=2, alpha=3))
    reading = comfyui.read(folder / "pytorch_lora_weights.safetensors", denoiser)
    assert reading.not_loaded == []
    for key, change in changes.items():
        torch.testing.assert_close(1.5 * reading.changes[key], change, atol=1e-5, rtol=1e-4)


def test_layers_that_cannot_be_joined_are_written_one_by_one(bases, tmp_path):
    config = filled_lora(method="loha", rank=2)
    folder, *_ = trained(bases["flux"], tmp_path / "adapter", config)
    layers = {key.split(".")[0] for key in load_file(folder / "style.safetensors")}
    assert "lora_transformer_single_transformer_blocks_0_attn_to_k" in layers
    assert not any("linear1" in layer for layer in layers)


def test_a_file_in_diffusers_names_alone_is_what_comfyui_does_not_load(bases, tmp_path):
    """Why an adapter of a U-Net comes in kohya's names as well: the reader above would accept anything else."""
    folder, denoiser, _ = trained(bases["sdxl"], tmp_path / "adapter", filled_lora(rank=2, targets="attention"))
    reading = comfyui.read(folder / "pytorch_lora_weights.safetensors", denoiser)
    assert reading.changes == {}
    assert len(reading.not_loaded) > 20


def test_diffusers_takes_joined_layers_of_the_published_width_apart_again():
    """Its reader of sd-scripts' FLUX files has that width written in, so it cannot be shown on a tiny model."""
    from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers

    sizes = {"attn.to_q": 3072, "attn.to_k": 3072, "attn.to_v": 3072, "proj_mlp": 12288}
    generator = torch.Generator().manual_seed(0)
    block, parts_of_block, file = "single_transformer_blocks.0", [], {}
    for layer, rows in sizes.items():
        down, up = torch.randn(2, 3072, generator=generator), torch.randn(rows, 2, generator=generator)
        place = flux_slice(f"{block}.{layer}", 3072)
        parts_of_block.append((LowRankUpdate(down, up, 3.0), place))
    joined = join(parts_of_block, place.rows)
    name = "lora_unet_single_blocks_0_linear1"
    for part, tensor in (*joined.tensors().items(), ("alpha", torch.tensor(joined.alpha))):
        file[f"{name}.{part}"] = tensor
    read = _convert_kohya_flux_lora_to_diffusers(file)
    for (update, _), layer in zip(parts_of_block, sizes, strict=True):
        key = f"transformer.{block}.{layer}.lora_"
        torch.testing.assert_close(
            read[f"{key}B.weight"] @ read[f"{key}A.weight"], update.delta(), atol=1e-4, rtol=1e-4
        )


def test_the_original_names_of_flux_are_those_that_diffusers_converts():
    """At the published width, without memory: names and shapes only."""
    from diffusers import FluxTransformer2DModel
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    with torch.device("meta"):
        model = FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True)
    expected = {key: tensor.shape for key, tensor in model.state_dict().items()}
    made = convert_flux_transformer_checkpoint_to_diffusers(flux_tensors(model))
    assert {key: tensor.shape for key, tensor in made.items()} == expected
    for layer, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "transformer_blocks" in layer:
            ours, theirs = flux_slice(layer, 3072), denoiser_rows(model)[layer]
            assert f"model.diffusion_model.{ours.name}.weight" == theirs.key
            assert ours.first_row == theirs.first
