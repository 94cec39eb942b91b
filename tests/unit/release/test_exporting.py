"""Exported files hold what was trained, in the layouts that other tools load."""

from __future__ import annotations

import os
import re

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sdlora.core.errors import StorageError, WeightsError
from sdlora.lora.attach import attach_lora
from sdlora.lora.formats.kohya import read_kohya_file, write_with_hashes
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.models.stable_diffusion import StableDiffusion
from sdlora.release import exporting
from sdlora.release.exporting import export_adapter, export_model
from tests import families
from tests.original import (
    flux_of_width,
    write_flux_checkpoint,
    write_original_checkpoint,
    write_version_3_checkpoint,
)
from tests.settings import filled_lora
from tests.tiny import tiny_base_model
from tests.unit.lora.perturb import perturb_adapter
from tests.unit.lora.test_files import draw, save

CONFIG = filled_lora(rank=2, alpha=3)


def made(folder, home, config=CONFIG):
    base = load_base_model(BaseModelConfig(source=str(folder)), home)
    denoiser = perturb_adapter(attach_lora(parts.load_denoiser(base), config))
    return base, save(home / "adapter", denoiser, config, base)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    home = tmp_path_factory.mktemp("export")
    return made(tiny_base_model(home / "base"), home)


@pytest.mark.parametrize("name", ["sd1", *families.BUILDERS])
def test_a_merged_checkpoint_in_the_original_layout_draws_what_the_adapter_does(name, tmp_path):
    folder = tiny_base_model(tmp_path / "m") if name == "sd1" else families.build(name, tmp_path / "m")
    base, adapter = made(folder, tmp_path)
    with flux_of_width(32):
        out = export_model(base, adapter, tmp_path / "out" / "merged.safetensors")
        again = load_base_model(BaseModelConfig(source=str(out), layout=str(folder)), tmp_path)
    expected = draw(StableDiffusion.from_ref(base, adapter, precision="fp32"))
    assert torch.equal(draw(StableDiffusion.from_ref(again, precision="fp32")), expected)
    assert not torch.equal(draw(StableDiffusion.from_ref(base, precision="fp32")), expected)


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "text_encoder/model"])
def test_a_base_with_nan_is_named_and_not_written(part, tmp_path):
    path = tiny_base_model(tmp_path / "base") / f"{part}.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("weight"))
    tensors[name].view(-1)[3] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    base = load_base_model(BaseModelConfig(source=str(tmp_path / "base")), tmp_path)
    with pytest.raises(WeightsError, match=rf"not finite numbers: .* of {path.parent.name}.*copy the base model again"):
        export_model(base, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_original_layout_has_the_names_that_another_writer_gives(tiny, tmp_path):
    base, _ = tiny
    ours = load_file(export_model(base, None, tmp_path / "ours.safetensors"))
    theirs = load_file(write_original_checkpoint(base.folder, tmp_path / "theirs.safetensors"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key].reshape(theirs[key].shape), theirs[key]) for key in theirs)


@pytest.mark.parametrize(
    ("name", "options", "write"),
    [
        ("sd3", {}, write_version_3_checkpoint),
        ("flux", {"dev": True}, write_flux_checkpoint),
        ("flux", {"dev": False}, write_flux_checkpoint),
    ],
)
def test_transformers_have_the_names_and_rows_that_another_writer_gives(name, options, write, tmp_path):
    base = load_base_model(BaseModelConfig(source=str(families.build(name, tmp_path / "m", **options))), tmp_path)
    with flux_of_width(32):
        ours = load_file(export_model(base, None, tmp_path / "ours.safetensors"))
    theirs = load_file(write(base.folder, tmp_path / "theirs.safetensors"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key].reshape(theirs[key].shape), theirs[key]) for key in theirs)


def test_version_3_without_its_t5_is_written_without_it(tmp_path):
    base, adapter = made(families.build("sd3", tmp_path / "m", with_t5=False), tmp_path)
    out = export_model(base, adapter, tmp_path / "merged.safetensors")
    assert not any("t5xxl" in key for key in load_file(out))
    again = load_base_model(BaseModelConfig(source=str(out), layout=str(base.folder)), tmp_path)
    expected = draw(StableDiffusion.from_ref(base, adapter, precision="fp32"))
    assert torch.equal(draw(StableDiffusion.from_ref(again, precision="fp32")), expected)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_a_merged_folder_loads_as_a_base_model_in_the_asked_precision(dtype, tiny, tmp_path):
    base, adapter = tiny
    out = export_model(base, adapter, tmp_path / "merged", dtype)
    weights = load_file(out / "unet" / "diffusion_pytorch_model.safetensors")
    assert {str(tensor.dtype) for tensor in weights.values()} == {
        {"fp32": "torch.float32", "fp16": "torch.float16", "bf16": "torch.bfloat16"}[dtype]
    }
    again = load_base_model(BaseModelConfig(source=str(out)), tmp_path)
    expected = draw(StableDiffusion.from_ref(base, adapter, precision="fp32")).int()
    assert (draw(StableDiffusion.from_ref(again, precision="fp32")).int() - expected).abs().float().mean() < 1


@pytest.mark.parametrize("out", ["adapter.safetensors", "folder"])
def test_an_adapter_in_half_precision_takes_half_the_bytes_and_is_nearly_the_same(out, tiny, tmp_path):
    base, adapter = tiny
    whole, half = (export_adapter(adapter, tmp_path / dtype / out, dtype) for dtype in ("fp32", "fp16"))
    whole, half = ((path / "pytorch_lora_weights.safetensors" if path.is_dir() else path) for path in (whole, half))
    sizes = [sum(tensor.nbytes for tensor in load_file(path).values()) for path in (half, whole)]
    assert 2 * sizes[0] == sizes[1]
    fresh = StableDiffusion.from_ref(base, precision="fp32")
    fresh.pipeline().load_lora_weights(str(half), local_files_only=True)
    expected = draw(StableDiffusion.from_ref(base, adapter, precision="fp32")).int()
    assert (draw(fresh).int() - expected).abs().float().mean() < 1


@pytest.mark.parametrize(("method", "rank"), [("loha", 2), ("lokr", 2), ("lokr", 8)])
def test_a_folder_of_a_loha_or_lokr_is_one_that_peft_puts_into_a_stock_pipeline(method, rank, tmp_path):
    base, adapter = made(tiny_base_model(tmp_path / "m"), tmp_path, filled_lora(method=method, rank=rank, alpha=3))
    out = export_adapter(adapter, tmp_path / "folder")
    model = StableDiffusion.from_ref(base, precision="fp32")
    bare = draw(model).int()
    model.denoiser = PeftModel.from_pretrained(model.denoiser, str(out)).merge_and_unload()
    expected = draw(StableDiffusion.from_ref(base, adapter, precision="fp32")).int()
    assert (expected - bare).abs().float().mean() > 1
    assert (draw(model).int() - expected).abs().max() <= 1


def test_diffusers_itself_does_not_load_a_loha(tmp_path):
    """Should this fail one day, the folder above is not needed any more."""
    base, adapter = made(tiny_base_model(tmp_path / "m"), tmp_path, filled_lora(method="loha", rank=2))
    pipeline = StableDiffusion.from_ref(base, precision="fp32").pipeline()
    with pytest.raises(ValueError, match="Invalid LoRA checkpoint"):
        pipeline.load_lora_weights(str(adapter.folder), local_files_only=True)


def test_a_dora_for_comfyui_gives_there_what_was_trained(tmp_path):
    base, adapter = made(tiny_base_model(tmp_path / "m"), tmp_path, filled_lora(method="dora", rank=2))
    out = export_adapter(adapter, tmp_path / "comfy.safetensors", reader="comfyui", base=base)
    trained, there = read_kohya_file(adapter.folder / "style.safetensors"), read_kohya_file(out, "comfyui")
    weights = dict(parts.load_denoiser(base).named_parameters())
    for layer in {name.removesuffix(".weight") for name in weights}:
        key = "lora_unet_" + layer.replace(".", "_")
        if key in trained:
            weight = weights[f"{layer}.weight"].detach()
            torch.testing.assert_close(there[key](weight), trained[key](weight), atol=1e-4, rtol=1e-4)
    with safe_open(out, "pt") as file:
        assert file.metadata()["sdlora.dora_rule"] == "comfyui"
    with pytest.raises(WeightsError, match="name the base model"):
        export_adapter(adapter, tmp_path / "other.safetensors", reader="comfyui")


def test_an_exported_file_has_the_date_of_its_adapter(tiny, tmp_path):
    _, adapter = tiny
    os.utime(adapter.folder / "style.safetensors", (1764417600, 1764417600))
    for name in ("first.safetensors", "second.safetensors"):
        with safe_open(export_adapter(adapter, tmp_path / name), "pt") as file:
            assert file.metadata()["modelspec.date"] == "2025-11-29T12:00:00+00:00"


def test_no_exported_file_names_a_folder_or_a_person(tiny, tmp_path):
    base, adapter = tiny
    written = [
        export_model(base, adapter, tmp_path / "secret-place" / "folder"),
        export_model(base, adapter, tmp_path / "secret-place" / "one.safetensors"),
        export_adapter(adapter, tmp_path / "secret-place" / "adapter.safetensors"),
        export_adapter(adapter, tmp_path / "secret-place" / "diffusers"),
    ]
    files = [file for path in written for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        for private in (b"secret-place", str(tmp_path).encode(), str(base.folder).encode(), b"/root/", b"/home/"):
            assert private not in content, path


def test_nothing_that_is_there_is_overwritten_and_nothing_half_written_stays(tiny, tmp_path):
    base, adapter = tiny
    out = tmp_path / "there.safetensors"
    out.write_text("mine")
    with pytest.raises(StorageError, match=re.escape(str(out))):
        export_adapter(adapter, out)
    with pytest.raises(StorageError, match=re.escape(str(out))):
        export_model(base, adapter, out)
    assert out.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_that_is_read_back_as_not_a_number_is_no_export(tiny, tmp_path, monkeypatch):
    _, adapter = tiny

    def write_nan(path, tensors, metadata):
        return write_with_hashes(path, {key: tensor * float("nan") for key, tensor in tensors.items()}, metadata)

    monkeypatch.setattr(exporting, "write_with_hashes", write_nan)
    with pytest.raises(WeightsError, match="differs from the adapter"):
        export_adapter(adapter, tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())
