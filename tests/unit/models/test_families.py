from __future__ import annotations

import json
import shutil

import pytest
import torch
from diffusers import DDIMScheduler

from sdlora.core.errors import WeightsError
from sdlora.models.config import BaseModelConfig
from sdlora.models.families import find_layout
from sdlora.models.families.base import Framing
from sdlora.models.families.flux import image_positions, pack, unpack
from sdlora.models.files.sources import load_base_model
from sdlora.models.stable_diffusion import StableDiffusion
from tests import families


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    home = tmp_path_factory.mktemp("families")
    return {name: families.build(name, home / name) for name in families.BUILDERS}


def load(folder, home):
    return load_base_model(BaseModelConfig(source=str(folder)), home)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_each_family_is_found_from_its_own_files(folders, base_folder):
    assert {name: find_layout(folder).name for name, folder in folders.items()} == {name: name for name in folders}
    assert find_layout(base_folder).name == "sd1"


@pytest.mark.parametrize("name", list(families.BUILDERS))
def test_a_family_draws_what_its_stock_pipeline_draws(name, folders, tmp_path):
    model = StableDiffusion.from_ref(load(folders[name], tmp_path), precision="fp32")
    drawn = model.generate(["a red circle", "a blue ring"], [3, 4], steps=3, guidance_scale=3.0)
    assert drawn.shape == (2, 3, 64, 64)
    assert not torch.equal(drawn[0], drawn[1])
    checker = {"safety_checker": None} if name == "sd2" else {}
    stock = model.family.pipeline_class.from_pretrained(folders[name], local_files_only=True, **checker)
    stock.set_progress_bar_config(disable=True)
    if name in ("sd2", "sdxl"):
        stock.scheduler = DDIMScheduler.from_config(stock.scheduler.config)
    expected = stock(
        "a blue ring",
        negative_prompt=None if name == "flux" else "",
        height=64,
        width=64,
        num_inference_steps=3,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(4),
        output_type="pt",
        **({"guidance_rescale": 0.7} if name == "sd2" else {}),
    ).images
    assert (drawn[1] - (expected[0] * 255).round()).abs().max() <= 2


@pytest.mark.parametrize("name", list(families.BUILDERS))
def test_the_prompt_reaches_the_denoiser(name, folders, tmp_path):
    model = StableDiffusion.from_ref(load(folders[name], tmp_path), precision="fp32")
    noisy = torch.randn(2, model.autoencoder.config.latent_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    conditioning = model.encode_prompts(["a red circle", "a blue ring"])
    assert {len(tensor) for tensor in conditioning.values()} == {2}
    with torch.no_grad():
        same = model.family.predict(model.denoiser, noisy[:1].repeat(2, 1, 1, 1), torch.tensor([500.0]), conditioning)
    assert same.shape == noisy.shape
    assert not torch.allclose(same[0], same[1], atol=1e-5)


def test_without_t5_stable_diffusion_3_sees_zeros_in_its_place(tmp_path):
    model = StableDiffusion.from_ref(load(families.build("sd3", tmp_path / "no-t5", with_t5=False), tmp_path))
    assert [part.folder for part in model.family.text_parts] == ["text_encoder", "text_encoder_2"]
    hidden = model.encode_prompts(["a red circle"])["encoder_hidden_states"]
    assert hidden.shape == (1, 77 + 256, 80)
    assert hidden[:, 77:].abs().max() == 0
    assert hidden[:, :77].abs().max() > 0
    assert model.generate(["a red circle"], [0], steps=2).shape == (1, 3, 64, 64)


def test_schnell_has_no_guidance_and_half_of_devs_tokens(tmp_path, folders):
    schnell = StableDiffusion.from_ref(load(families.build("flux", tmp_path / "schnell", dev=False), tmp_path))
    first, second = (schnell.generate(["a red circle"], [0], steps=2, guidance_scale=scale) for scale in (1.5, 6.0))
    assert torch.equal(first, second)
    assert schnell.encode_prompts(["a"])["encoder_hidden_states"].shape[1] == 256
    dev = StableDiffusion.from_ref(load(folders["flux"], tmp_path))
    first, second = (dev.generate(["a red circle"], [0], steps=2, guidance_scale=scale) for scale in (1.5, 6.0))
    assert not torch.equal(first, second)


def test_xl_is_told_how_an_image_was_framed(folders, tmp_path):
    model = StableDiffusion.from_ref(load(folders["sdxl"], tmp_path))
    family = model.family
    framing = family.image_conditioning(Framing(original_px=(300, 200), crop_px=(16, 0), target_px=(64, 64)))
    assert framing["time_ids"].tolist() == [300, 200, 16, 0, 64, 64]
    text = model.encode_prompts(["a red circle"])
    noisy, timestep = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500])

    def predict(**more):
        with torch.no_grad():
            return family.predict(model.denoiser, noisy, timestep, {**text, **more})

    whole = family.image_conditioning(Framing((64, 64), (0, 0), (64, 64)))["time_ids"][None]
    torch.testing.assert_close(predict(), predict(time_ids=whole))
    assert not torch.allclose(predict(), predict(time_ids=framing["time_ids"][None]), atol=1e-5)


def test_packed_latents_keep_rows_and_columns():
    latents = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    tokens = pack(latents)
    assert tokens.shape == (2, 6, 12)
    assert torch.equal(unpack(tokens, 4, 6), latents)
    assert sorted(tokens[0, 0].tolist()) == sorted(latents[0, :, :2, :2].flatten().tolist())
    assert image_positions(4, 6).tolist() == [[0, row, column] for row in range(2) for column in range(3)]


def test_an_unknown_pipeline_is_refused_with_the_list_of_families(folders, tmp_path):
    folder = shutil.copytree(folders["sdxl"], tmp_path / "copy")
    edit(folder / "model_index.json", _class_name="KandinskyPipeline")
    with pytest.raises(WeightsError, match=r"'KandinskyPipeline'.*Stable Diffusion XL.*FLUX\.1 \(FluxPipeline\)"):
        load(folder, tmp_path)


@pytest.mark.parametrize(
    ("name", "part", "setting", "value"),
    [
        ("sd2", "text_encoder", "hidden_size", 48),
        ("sd2", "unet", "in_channels", 9),  # an inpainting edition
        ("sdxl", "text_encoder_2", "projection_dim", 32),
        ("sdxl", "text_encoder", "hidden_size", 48),
        ("sd3", "vae", "latent_channels", 4),
        ("sd3", "text_encoder_3", "d_model", 64),
        ("flux", "text_encoder_2", "d_model", 64),
        ("flux", "text_encoder", "hidden_size", 48),
        ("flux", "vae", "latent_channels", 4),
    ],
)
def test_parts_of_different_models_are_refused_before_weights_are_read(name, part, setting, value, folders, tmp_path):
    folder = shutil.copytree(folders[name], tmp_path / "copy")
    edit(folder / part / "config.json", **{setting: value})
    with pytest.raises(WeightsError, match=r"do not belong together: .* Take all parts from one model"):
        load(folder, tmp_path)


def test_a_missing_part_of_a_family_is_named(folders, tmp_path):
    folder = shutil.copytree(folders["sd3"], tmp_path / "copy")
    shutil.rmtree(folder / "text_encoder_3")
    with pytest.raises(WeightsError, match="text_encoder_3"):
        load(folder, tmp_path)
