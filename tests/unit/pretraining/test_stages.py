from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from sdlora.core.errors import DataError
from sdlora.pretraining.autoencoder import build_autoencoder, encode_images, standardise_latents
from sdlora.pretraining.config import DecoderConfig, PretrainConfig, UNetConfig
from sdlora.pretraining.decoder import DecoderAndDiscriminator, train_decoder
from sdlora.pretraining.loop import Stage, lr_schedule, make_accelerator
from sdlora.pretraining.pretrain import pretrain
from sdlora.pretraining.text_encoder import build_text_encoder
from sdlora.pretraining.tokenizer import train_tokenizer
from sdlora.pretraining.unet import train_unet
from tests.tiny import TINY

CAPTIONS = [(f"a thing number {index}", "a thing") for index in range(8)]


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def tiny_config(**sections: object) -> PretrainConfig:
    quick = DecoderConfig(steps=2, batch_size=2, learning_rate=1e-3)
    return TINY.model_copy(update={"decoder": quick, **sections})


def test_standardised_latents_decode_to_the_same_picture(images: Tensor) -> None:
    torch.manual_seed(0)
    autoencoder = build_autoencoder(TINY).eval()
    pixels = images.float() / 127.5 - 1
    with torch.no_grad():
        before = autoencoder.decode(autoencoder.encode(pixels).latent_dist.mean).sample
        deviation_before = autoencoder.encode(pixels).latent_dist.std
        standardise_latents(autoencoder, images)
        after = autoencoder.decode(autoencoder.encode(pixels).latent_dist.mean).sample
        deviation_after = autoencoder.encode(pixels).latent_dist.std
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(deviation_after, deviation_before)
    latents = encode_images(autoencoder, images)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), rtol=0, atol=1e-3)


def test_the_decoder_stage_leaves_the_latents_as_they_are(images: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    autoencoder = build_autoencoder(TINY)
    latents = encode_images(autoencoder.eval(), images)
    decoder_before = {name: value.clone() for name, value in autoencoder.decoder.state_dict().items()}
    trained = train_decoder(Stage(make_accelerator(), tmp_path), autoencoder, images, tiny_config())
    torch.testing.assert_close(encode_images(trained, images), latents, rtol=0, atol=0)
    assert any(not torch.equal(value, decoder_before[name]) for name, value in trained.decoder.state_dict().items())


def test_each_adversary_learns_from_its_own_loss_only(images: Tensor) -> None:
    model = DecoderAndDiscriminator(build_autoencoder(TINY))
    _, seen_by_decoder, real, fake = model(images[:2].float() / 127.5 - 1)
    seen_by_decoder.mean().backward(retain_graph=True)
    assert all(weight.grad is None for weight in model.discriminator.parameters())
    assert model.autoencoder.decoder.conv_out.weight.grad is not None
    model.zero_grad(set_to_none=True)
    (fake.mean() - real.mean()).backward()
    assert model.autoencoder.decoder.conv_out.weight.grad is None
    assert all(weight.grad is not None for weight in model.discriminator.parameters())


def test_a_stopped_unet_stage_ends_with_the_weights_of_one_never_stopped(tmp_path: Path) -> None:
    tokenizer = train_tokenizer([text for row in CAPTIONS for text in row], 600, 16)
    latents = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(1))

    def run(folder: Path, stop_after: int | None = None) -> dict[str, Tensor]:
        section = TINY.unet.model_dump() | {"steps": 6, "checkpoint_every_steps": 3}
        config = tiny_config(unet=UNetConfig(**section))
        torch.manual_seed(5)
        text_encoder = build_text_encoder(config, tokenizer)

        if stop_after is not None:
            original = torch.optim.AdamW.step
            calls = {"count": 0}

            def counted(self, *args, **kwargs):  # type: ignore[no-untyped-def]
                calls["count"] += 1
                if calls["count"] > stop_after:
                    raise KeyboardInterrupt
                return original(self, *args, **kwargs)

            torch.optim.AdamW.step = counted  # type: ignore[method-assign]
            try:
                with pytest.raises(KeyboardInterrupt):
                    train_unet(Stage(make_accelerator(), folder), tokenizer, text_encoder, latents, CAPTIONS, config)
            finally:
                torch.optim.AdamW.step = original  # type: ignore[method-assign]
            return {}
        stage = Stage(make_accelerator(), folder)
        return train_unet(stage, tokenizer, text_encoder, latents, CAPTIONS, config).state_dict()

    whole = run(tmp_path / "whole")
    run(tmp_path / "stopped", stop_after=4)
    continued = run(tmp_path / "stopped")
    assert all(torch.equal(whole[name], continued[name]) for name in whole)


def test_pretraining_ends_with_a_folder_that_diffusers_loads(images: Tensor, tmp_path: Path) -> None:
    reported: list[str] = []
    folder = pretrain(images, CAPTIONS, tiny_config(), tmp_path, lambda stage, _step, _values: reported.append(stage))
    assert reported == ["autoencoder", "text encoder", "unet", "decoder"]
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a thing", num_inference_steps=2, height=64, width=64).images[0]
    assert image.size == (64, 64)
    assert not list(folder.rglob("*.bin"))


def test_images_without_captions_are_refused(images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="7 with a caption"):
        pretrain(images, [*CAPTIONS[:7], ()], tiny_config(), tmp_path)


@pytest.mark.parametrize(("step", "expected"), [(0, 0.1), (9, 1.0), (50, 1.0), (100, 0.02), (75, 0.51)])
def test_rate_factor_warms_up_stays_flat_and_falls_to_two_percent(step: int, expected: float) -> None:
    assert lr_schedule(step, steps=100, warmup_steps=10, flat_fraction=0.5) == pytest.approx(expected)
