"""What is written must be what diffusers, ComfyUI and A1111 read."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from sdlora.core.errors import StorageError, WeightsError
from sdlora.lora.attach import attach_lora
from sdlora.lora.formats.tensor_file import write_tensor_file
from sdlora.lora.layers import collect_updates
from sdlora.lora.load import load_adapter, merge, open_adapter
from sdlora.lora.manifest import AdapterOrigin
from sdlora.lora.save import save_adapter
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.models.stable_diffusion import StableDiffusion
from tests.settings import filled_lora
from tests.tiny import tiny_base_model
from tests.unit.lora.perturb import perturb_adapter
from tests.unit.training.disk import disk_space

SMALL = filled_lora(rank=2, targets="attention")
PROMPT, SEED = ["a red circle"], [3]
CONFIGS = [
    filled_lora(rank=4, targets="attention"),
    filled_lora(rank=4, alpha=2, targets="attention+ff"),
    filled_lora(rank=4, alpha=6, targets="all"),
]


def draw(model):
    return model.generate(PROMPT, SEED, steps=2, guidance_scale=2.0)


def save(folder, unet, config, base, text_encoders=None, **changes):
    options = {
        "name": "style",
        "snapshot_digest": "5" * 64,
        "run_digest": "6" * 64,
        "prediction_type": "v_prediction",
        "resolution_px": 64,
        "training": {"steps": 3},
        "details": {"ss_steps": "3"},
    }
    origin = AdapterOrigin(**(options | changes))
    return save_adapter(folder, unet, config, base, origin, text_encoders or {})


def trained_model(base, config):
    model = StableDiffusion.from_ref(base, precision="fp32")
    perturb_adapter(attach_lora(model.denoiser, config))
    return model


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.targets)
def test_both_files_and_the_merge_draw_what_the_trained_adapter_draws(config, base, tmp_path):
    model = trained_model(base, config)
    expected = draw(model)
    assert (expected.int() - draw(StableDiffusion.from_ref(base, precision="fp32")).int()).abs().float().mean() > 1
    adapter = save(tmp_path / "adapter", model.denoiser, config, base)

    def through_diffusers(file):
        fresh = StableDiffusion.from_ref(base, precision="fp32")
        fresh.pipeline().load_lora_weights(str(adapter.folder), weight_name=file, local_files_only=True)
        return draw(fresh)

    assert torch.equal(through_diffusers("pytorch_lora_weights.safetensors"), expected)
    assert torch.equal(through_diffusers("style.safetensors"), expected)
    reloaded = StableDiffusion.from_ref(base, precision="fp32")
    load_adapter(reloaded.denoiser, adapter, base)
    assert torch.equal(draw(reloaded), expected)
    merge(model.denoiser)
    assert not hasattr(model.denoiser, "peft_config")
    for merged in (model, StableDiffusion.from_ref(base, adapter, precision="fp32")):
        assert (draw(merged).int() - expected.int()).abs().max() <= 1  # (W + BA) x rounds unlike W x + B (A x)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.targets)
def test_merged_adapter_predicts_what_the_unmerged_one_does(config, base):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 4, 16, 16, generator=generator), torch.tensor([10, 900]), torch.randn(2, 32, 16)
    unet = parts.load_denoiser(base)
    before = unet(*inputs).sample
    expected = perturb_adapter(attach_lora(unet, config))(*inputs).sample
    assert not torch.allclose(expected, before, atol=1e-2)
    torch.testing.assert_close(merge(unet)(*inputs).sample, expected, atol=1e-4, rtol=1e-4)


def test_the_diffusers_file_has_one_kind_of_key_and_says_its_alpha(base, tmp_path):
    config = filled_lora(rank=4, alpha=6)
    model = trained_model(base, config)
    adapter = save(tmp_path / "adapter", model.denoiser, config, base)
    with safe_open(adapter.folder / "pytorch_lora_weights.safetensors", "pt") as file:
        keys, metadata = set(file.keys()), file.metadata()
    layers = collect_updates(model.denoiser)
    assert keys == {f"unet.{name}.lora_{side}.weight" for name in layers for side in "AB"}
    settings = json.loads(metadata["lora_adapter_metadata"])
    assert (settings["unet.r"], settings["unet.lora_alpha"]) == (4, 6)


def test_the_kohya_file_follows_the_rules_that_other_tools_read_it_by(base, tmp_path):
    config = filled_lora(rank=4, alpha=6)
    model = trained_model(base, config)
    adapter = save(tmp_path / "adapter", model.denoiser, config, base)
    path = adapter.folder / "style.safetensors"
    tensors = load_file(path)
    for name, update in collect_updates(model.denoiser).items():
        key = "lora_unet_" + name.replace(".", "_")
        up, down, alpha = (tensors.pop(f"{key}.{part}") for part in ("lora_up.weight", "lora_down.weight", "alpha"))
        # ComfyUI, comfy/weight_adapter/lora.py: weight += strength * alpha / rank * mm(up.flatten, down.flatten)
        difference = (alpha / down.shape[0]) * torch.mm(up.flatten(start_dim=1), down.flatten(start_dim=1))
        torch.testing.assert_close(difference.reshape(update.delta().shape), update.delta())
    assert not tensors
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_network_dim"] == "4"
    assert metadata["ss_network_alpha"] == "6"
    assert metadata["ss_network_module"] == "networks.lora"
    assert json.loads(metadata["ss_network_args"]) == {"conv_dim": "4", "conv_alpha": "6"}
    assert metadata["ss_output_name"] == metadata["modelspec.title"] == "style"
    assert metadata["ss_v2"] == "False"
    assert metadata["ss_steps"] == "3"
    assert metadata["modelspec.prediction_type"] == "v"
    assert metadata["modelspec.resolution"] == "64x64"
    assert metadata["sdlora.base_digest"] == base.digest
    content = path.read_bytes()
    header = int.from_bytes(content[:8], "little")
    assert metadata["sshs_model_hash"] == hashlib.sha256(content[8 + header :]).hexdigest()
    assert re.fullmatch("[0-9a-f]{8}", metadata["sshs_legacy_hash"])


def test_a_note_in_the_folder_says_which_file_is_for_which_tool(base, tmp_path):
    adapter = save(tmp_path / "adapter", trained_model(base, SMALL).denoiser, SMALL, base)
    first, second, _ = (adapter.folder / "README.txt").read_text().splitlines()
    assert first.startswith("pytorch_lora_weights.safetensors: for diffusers and sdlora. Not for ComfyUI")
    assert second == "style.safetensors: for ComfyUI, Forge, A1111, sd-scripts, LyCORIS."


def test_no_file_names_a_folder_a_person_or_a_time(base, tmp_path):
    folder = tmp_path / "secret-project" / "adapter"
    config = SMALL
    adapter = save(folder, trained_model(base, config).denoiser, config, base)
    for path in adapter.folder.iterdir():
        content = path.read_bytes()
        for private in (b"secret-project", str(tmp_path).encode(), str(base.folder).encode()):
            assert private not in content, path.name
        assert not re.search(rb"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", content), path.name


def test_the_bytes_of_a_file_do_not_depend_on_the_order_of_its_entries(tmp_path):
    files = []
    for order in ("abcdefgh", "hgfedcba"):
        files.append(tmp_path / order)
        write_tensor_file(files[-1], {c: torch.full((3,), float(ord(c))) for c in order}, {c: c for c in order})
    assert files[0].read_bytes() == files[1].read_bytes()
    content = files[0].read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert list(header.pop("__metadata__")) == list(header) == list("abcdefgh")


def test_the_same_adapter_is_saved_as_the_same_bytes(base, tmp_path):
    config = SMALL
    folders = [save(tmp_path / name, trained_model(base, config).denoiser, config, base).folder for name in "ab"]
    for path in folders[0].iterdir():
        assert path.read_bytes() == (folders[1] / path.name).read_bytes(), path.name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_written_tensors_are_read_back_by_the_safetensors_library(dtype, tmp_path):
    tensors = {
        "b": torch.randn(3, 5).to(dtype),
        "a": torch.tensor(2.0, dtype=dtype),
        "c": torch.zeros(0, 4, dtype=dtype),
    }
    digest = write_tensor_file(tmp_path / "file.safetensors", tensors, {"key": "wert ü"})
    read = load_file(tmp_path / "file.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) and read[name].dtype == dtype for name, tensor in tensors.items())
    with safe_open(tmp_path / "file.safetensors", "pt") as file:
        assert file.metadata() == {"key": "wert ü"}
    assert digest == hashlib.sha256((tmp_path / "file.safetensors").read_bytes()).hexdigest()


def test_an_opened_adapter_is_the_saved_one(base, tmp_path):
    config = SMALL
    adapter = save(tmp_path / "adapter", trained_model(base, config).denoiser, config, base)
    assert open_adapter(tmp_path / "adapter") == adapter


@pytest.mark.parametrize("file", ["pytorch_lora_weights.safetensors", "style.safetensors", "adapter.json"])
def test_a_missing_or_damaged_file_of_an_adapter_is_named(file, base, tmp_path):
    config = SMALL
    path = save(tmp_path / "adapter", trained_model(base, config).denoiser, config, base).folder / file
    content = path.read_bytes()
    path.write_bytes(content[:-9] + b"\0" + content[-8:])
    with pytest.raises(WeightsError, match=rf"{file} is damaged"):
        open_adapter(tmp_path / "adapter")
    path.unlink()
    with pytest.raises(WeightsError, match=rf"{file} is missing"):
        open_adapter(tmp_path / "adapter")


def test_an_adapter_of_another_base_model_is_refused(base, tmp_path):
    config = SMALL
    adapter = save(tmp_path / "adapter", trained_model(base, config).denoiser, config, base)
    other = load_base_model(BaseModelConfig(source=str(tiny_base_model(tmp_path / "other", seed=1))), tmp_path)
    for use in (
        lambda: StableDiffusion.from_ref(other, adapter),
        lambda: load_adapter(parts.load_denoiser(other), adapter, other),
    ):
        with pytest.raises(WeightsError, match=rf"{adapter.base_digest[:12]}.*{other.digest[:12]}"):
            use()


def test_a_damaged_adapter_is_not_drawn_with(base, tmp_path):
    config = SMALL
    adapter = save(tmp_path / "adapter", trained_model(base, config).denoiser, config, base)
    path = adapter.folder / "pytorch_lora_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(WeightsError, match=path.name):
        StableDiffusion.from_ref(base, adapter)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "pytorch_lora_weights"])
def test_a_name_that_is_no_file_name_is_refused(name, base, tmp_path):
    config = SMALL
    with pytest.raises(WeightsError, match=re.escape(repr(name))):
        save(tmp_path / "adapter", trained_model(base, config).denoiser, config, base, name=name)


def test_merging_without_an_adapter_is_an_error(base):
    with pytest.raises(WeightsError, match="no adapter"):
        merge(parts.load_denoiser(base))


def test_an_adapter_that_is_not_finite_is_not_merged(base):
    unet = perturb_adapter(attach_lora(parts.load_denoiser(base), SMALL))
    next(iter(layer for name, layer in unet.named_parameters() if "lora_B" in name)).data.fill_(float("nan"))
    with pytest.raises(WeightsError, match="cannot be merged"):
        merge(unet)


def test_a_full_disk_is_named_and_leaves_no_half_adapter(base, tmp_path):
    config = SMALL
    unet = trained_model(base, config).denoiser
    with disk_space(20_000), pytest.raises(StorageError, match=r"adapter.*Free some space"):
        save(tmp_path / "adapter", unet, config, base)
    assert not list(tmp_path.iterdir())
    save(tmp_path / "adapter", unet, config, base)
