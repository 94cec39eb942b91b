"""Single `.safetensors` checkpoints: which family, with and without a layout, and what is missing from them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from sdlora.core.errors import WeightsError
from sdlora.models.config import BaseModelConfig
from sdlora.models.files import single_file
from sdlora.models.files.checkpoint_keys import recognise
from sdlora.models.files.single_file import clip_tokenizer
from sdlora.models.files.sources import load_base_model
from sdlora.models.stable_diffusion import StableDiffusion
from tests import families, original

WRITERS = {
    "sd2": original.write_version_2_checkpoint,
    "sdxl": original.write_xl_checkpoint,
    "sd3": original.write_version_3_checkpoint,
    "flux": original.write_flux_checkpoint,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    home = tmp_path_factory.mktemp("families")
    return {name: families.build(name, home / name) for name in WRITERS}


def load(source, home, **options):
    return load_base_model(BaseModelConfig(source=str(source), **options), home)


def settings_of(folder, to):
    """The folder without its weights, as a layout is mostly given."""
    return shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors"))


def draw(ref):
    return StableDiffusion.from_ref(ref, precision="fp32").generate(["a red circle"], [3], steps=2)


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_checkpoint_of_each_family_draws_what_its_folder_draws(name, folders, tmp_path):
    path = WRITERS[name](folders[name], tmp_path / "one.safetensors")
    assert recognise(path).family == name
    with original.flux_of_width(32):
        ref = load(path, tmp_path / "home", layout=str(settings_of(folders[name], tmp_path / "layout")))
    assert torch.equal(draw(ref), draw(load(folders[name], tmp_path)))


def test_without_a_layout_xl_takes_the_published_settings_and_what_the_checkpoint_says_of_itself(
    folders, tmp_path, monkeypatch
):
    shipped = shutil.copytree(single_file._SHIPPED_LAYOUTS, tmp_path / "shipped")
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):  # as narrow as the test's model
        shutil.copy(folders["sdxl"] / part / "config.json", shipped / "sdxl" / part / "config.json")
    shutil.copy(folders["sdxl"] / "scheduler" / "scheduler_config.json", shipped / "sdxl" / "scheduler")
    monkeypatch.setattr(single_file, "_SHIPPED_LAYOUTS", shipped)
    monkeypatch.setattr(single_file, "clip_tokenizer", lambda _pad: families.clip_tokenizer())
    path = original.write_xl_checkpoint(folders["sdxl"], tmp_path / "one.safetensors", "v_pred", "ztsnr")
    ref = load(path, tmp_path / "home")
    schedule = json.loads((ref.folder / "scheduler" / "scheduler_config.json").read_text())
    assert (schedule["prediction_type"], schedule["rescale_betas_zero_snr"]) == ("v_prediction", True)
    plain = load(original.write_xl_checkpoint(folders["sdxl"], tmp_path / "plain.safetensors"), tmp_path / "home")
    assert torch.equal(draw(plain), draw(load(folders["sdxl"], tmp_path)))
    assert not list((tmp_path / "home" / "bases").glob(".*"))


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_the_shipped_settings_are_those_of_the_published_models(name):
    """The number of parameters, as the model cards and papers state it."""
    from sdlora.models.families import family_of

    family = family_of(single_file._SHIPPED_LAYOUTS / name)
    with torch.device("meta"):
        denoiser = family.denoiser_class.from_config(family.denoiser_settings)
        encoders = [
            part.encoder_class(part.encoder_class.config_class(**family.settings(part.folder)))
            for part in family.text_parts
        ]
    counts = [sum(p.numel() for p in module.parameters()) for module in (denoiser, *encoders)]
    expected = {"sd1": [859_520_964, 123_060_480], "sdxl": [2_567_463_684, 123_060_480, 694_659_840]}
    assert counts == expected[name]
    assert family.native_resolution == {"sd1": 512, "sdxl": 1024}[name]


def test_the_shipped_vocabulary_is_clips():
    tokenizer = clip_tokenizer("!")
    assert len(tokenizer) == 49408
    # From the model card of openai/clip-vit-large-patch14.
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    padded = tokenizer("a", padding="max_length").input_ids
    assert (len(padded), padded[-1]) == (77, 0)


def test_parts_that_the_checkpoint_lacks_come_from_the_layout(folders, tmp_path):
    path = original.write_version_3_checkpoint(folders["sd3"], tmp_path / "one.safetensors", with_text=False)
    assert recognise(path).missing == ("text_encoder", "text_encoder_2", "text_encoder_3")
    ref = load(path, tmp_path / "home", layout=str(folders["sd3"]))
    assert torch.equal(draw(ref), draw(load(folders["sd3"], tmp_path)))
    empty = settings_of(folders["sd3"], tmp_path / "layout")
    with pytest.raises(
        WeightsError, match=r"one\.safetensors holds no weights of text_encoder.*whole diffusers folder"
    ):
        load(path, tmp_path / "other", layout=str(empty))


@pytest.mark.parametrize("name", ["sd2", "sd3", "flux"])
def test_families_whose_settings_do_not_ship_ask_for_a_layout_and_say_why(name, folders, tmp_path):
    path = WRITERS[name](folders[name], tmp_path / "one.safetensors")
    with pytest.raises(WeightsError, match=r"(tokenizer of its T5|two kinds of prediction).*base_model\.layout"):
        load(path, tmp_path)


def test_a_layout_of_another_family_is_refused(folders, tmp_path):
    path = original.write_xl_checkpoint(folders["sdxl"], tmp_path / "one.safetensors")
    with pytest.raises(WeightsError, match=r"base_model\.layout: .* Stable Diffusion 3.*tensors of sdxl"):
        load(path, tmp_path, layout=str(folders["sd3"]))


def test_flux_is_recognised_with_and_without_the_outer_name(tmp_path):
    for prefix in ("", "model.diffusion_model."):
        key = f"{prefix}double_blocks.0.img_attn.qkv.weight"
        path = original.write({key: torch.zeros(1)}, tmp_path / "flux.safetensors")
        assert recognise(path).family == "flux"
        assert recognise(path).missing == ("vae", "text_encoder", "text_encoder_2")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", "adapter, not a base model"),
        ("down_blocks.0.resnets.0.conv1.weight", "one part of a base model.*whole folder"),
        ("model.something.else", "no supported family; supported: Stable Diffusion 1"),
    ],
)
def test_other_files_are_named_as_what_they_are(key, message, tmp_path):
    save_file({key: torch.zeros(1)}, tmp_path / "file.safetensors")
    with pytest.raises(WeightsError, match=f"file.safetensors .*{message}"):
        load(tmp_path / "file.safetensors", tmp_path)
