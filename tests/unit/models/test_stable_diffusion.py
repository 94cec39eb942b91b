from __future__ import annotations

import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline

from sdlora.core.errors import WeightsError
from sdlora.models.encode import decode_latents, encode_images, encode_text
from sdlora.models.precision import probe_precision, remembered_probe
from sdlora.models.stable_diffusion import StableDiffusion


@pytest.fixture(scope="module")
def model(base):
    return StableDiffusion.from_ref(base, precision="fp32")


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_an_image_does_not_depend_on_its_neighbours(model, sampler):
    prompts, seeds = ["a red circle", "a blue ring", "a green bar"], [5, 6, 7]
    together = model.generate(prompts, seeds, steps=3, sampler=sampler)
    in_twos = model.generate(prompts, seeds, steps=3, sampler=sampler, batch_size=2)
    alone = torch.cat([model.generate([p], [s], steps=3, sampler=sampler) for p, s in zip(prompts, seeds, strict=True)])
    assert together.shape == (3, 3, 64, 64)
    assert together.dtype == torch.uint8
    for other in (in_twos, alone):  # differently shaped products may round the last bit differently
        assert (together.int() - other.int()).abs().max() <= 1


def test_seed_and_prompt_and_guidance_all_matter(model):
    first = model.generate(["a red circle"], [1], steps=2)
    assert torch.equal(first, model.generate(["a red circle"], [1], steps=2))
    assert not torch.equal(first, model.generate(["a red circle"], [2], steps=2))
    assert not torch.equal(first, model.generate(["a blue ring"], [1], steps=2))
    assert not torch.equal(first, model.generate(["a red circle"], [1], steps=2, guidance_scale=9.0))
    assert not torch.equal(first, model.generate(["a red circle"], [1], steps=2, negative_prompt="a blue ring"))


def test_it_draws_what_the_stock_pipeline_draws(model, base):
    stock = StableDiffusionPipeline.from_pretrained(base.folder, safety_checker=None, local_files_only=True)
    stock.set_progress_bar_config(disable=True)
    expected = stock(
        "a red circle",
        num_inference_steps=4,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(3),
        output_type="pt",
    ).images
    drawn = model.generate(["a red circle"], [3], steps=4)
    assert (drawn - (expected * 255).round()).abs().max() <= 1  # attention is computed in another order


def test_generate_image_is_one_picture_of_generate(model):
    image = model.generate_image("a red circle", seed=4, steps=2)
    assert image.size == (64, 64)
    expected = model.generate(["a red circle"], [4], steps=2)[0].permute(1, 2, 0)
    assert image.tobytes() == expected.numpy().tobytes()


def test_progress_counts_up_to_the_total(model):
    seen = []
    model.generate(["a", "b", "c"], [0, 1, 2], steps=2, batch_size=2, on_progress=lambda *call: seen.append(call))
    assert seen == [("draw images", done, 4) for done in (1, 2, 3, 4)]


def test_bf16_draws_nearly_the_same_picture(model, base):
    exact = model.generate(["a red circle"], [1], steps=2, guidance_scale=1.5)
    rounded = StableDiffusion.from_ref(base, precision="bf16").generate(
        ["a red circle"], [1], steps=2, guidance_scale=1.5
    )
    assert (exact.float() - rounded.float()).abs().mean() < 3


def test_one_seed_per_prompt_is_required(model):
    with pytest.raises(ValueError, match="2 prompts and 1 seeds"):
        model.generate(["a", "b"], [0])


def test_a_model_without_weights_says_what_to_call(base):
    with pytest.raises(WeightsError, match="load_weights"):
        StableDiffusion(base).generate_image("a red circle")


def test_init_model_has_the_bases_shape_but_not_its_weights(base, model):
    torch.manual_seed(1)
    fresh = StableDiffusion(base).init_model()
    for part in (lambda m: m.denoiser, lambda m: m.autoencoder, lambda m: m.text_encoders["text_encoder"]):
        ours, theirs = part(fresh).state_dict(), part(model).state_dict()
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
        assert any(not torch.equal(ours[key], theirs[key]) for key in ours)
    fresh.load_weights()
    expected = model.denoiser.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in fresh.denoiser.state_dict().items())


def test_load_weights_refuses_files_that_are_not_the_named_ones(base, tmp_path):
    folder = shutil.copytree(base.folder, tmp_path / "copy")
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=base.digest[:12]):
        StableDiffusion.from_ref(base.model_copy(update={"folder": folder}))


def test_weights_stored_in_fp16_are_loaded_as_fp32(base, tmp_path):
    folder = tmp_path / "half"
    pipeline = StableDiffusionPipeline.from_pretrained(base.folder, safety_checker=None, local_files_only=True)
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
    from sdlora.models.config import BaseModelConfig
    from sdlora.models.files.sources import load_base_model

    half = StableDiffusion.from_ref(load_base_model(BaseModelConfig(source=str(folder)), tmp_path))
    modules = (half.denoiser, half.autoencoder, *half.text_encoders.values())
    assert {p.dtype for module in modules for p in module.parameters()} == {torch.float32}


def test_encoding_is_the_posterior_mean_and_does_not_depend_on_the_batch(model):
    images = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    latents = encode_images(model.autoencoder, images, batch_size=2)
    assert latents.shape == (5, 4, 16, 16)
    pixels = images.float() / 127.5 - 1
    with torch.no_grad():
        expected = model.autoencoder.encode(pixels).latent_dist.mean * model.autoencoder.config.scaling_factor
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=1e-4)
    decoded = decode_latents(model.autoencoder, latents, batch_size=2)
    assert decoded.shape == images.shape
    assert decoded.dtype == torch.uint8


def test_prompts_are_padded_and_cut_to_the_tokenizers_length(model):
    (part,) = model.family.text_parts
    tokenizer, encoder = model.tokenizers[part.tokenizer_folder], model.text_encoders[part.folder]
    outputs = encode_text(part, tokenizer, encoder, ["", "a red circle " * 40, "a"], batch_size=2)
    assert outputs["hidden"].shape == (3, tokenizer.model_max_length, encoder.config.hidden_size)


def test_the_precision_probe_is_remembered_in_the_state_folder(tmp_path):
    first = remembered_probe("cpu", tmp_path)
    assert first.precision in ("fp32", "bf16")
    path = tmp_path / "cache" / "precision.json"
    path.write_text(path.read_text().replace(f'"{first.precision}"', '"fp32"'))
    assert remembered_probe("cpu", tmp_path).precision == "fp32"
    path.write_text("damaged")
    assert remembered_probe("cpu", tmp_path) == probe_precision("cpu")
