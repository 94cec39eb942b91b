"""LoRA on the text encoders: trained beside the denoiser's, resumed, written, and drawn by the stock pipeline."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from sdlora.adapter import LoRA
from sdlora.core.errors import TargetModuleError
from sdlora.lora.formats.inspect import inspect_adapter
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.families import family_of
from sdlora.models.files.sources import load_base_model
from sdlora.models.stable_diffusion import StableDiffusion
from sdlora.release.exporting import export_model
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.identity import run_digest
from sdlora.training.job import TrainingJob
from sdlora.training.loop import Run
from tests import comfyui, families
from tests.unit.training.setting import CONFIG, EVERYTHING, LORA, LORA_WITH_DROPOUT, Callbacks
from tests.unit.training.test_fine_tuning import contents, curve, interrupt_at

WITH_TEXT = LORA.model_copy(update={"text_encoder_rank": 3})
# A rate at which a few steps on an untrained base already show in what it draws.
STEPS = CONFIG.model_copy(update={"precision": "fp32", "learning_rate": 0.02, "text_encoder_learning_rate": 0.05})
LAYERS = {"sd1": {"text_encoder": 4}, "sd2": {"text_encoder": 8}, "sdxl": {"text_encoder": 4, "text_encoder_2": 8}}
CLIPS = {"sd1": ("clip_l",), "sd2": ("clip_h",), "sdxl": ("clip_l", "clip_g")}
KOHYA = {"sd1": ("lora_te_",), "sd2": ("lora_te_",), "sdxl": ("lora_te1_", "lora_te2_")}


@pytest.fixture(scope="module")
def bases(base, tmp_path_factory):
    home = tmp_path_factory.mktemp("text")
    folders = {name: families.build(name, home / name) for name in ("sd2", "sdxl", "flux")}
    others = {name: load_base_model(BaseModelConfig(source=str(folder)), home) for name, folder in folders.items()}
    return {"sd1": base} | others


@pytest.fixture(scope="module")
def adapters(bases, filled, tmp_path_factory):
    store, snapshot = filled
    home = tmp_path_factory.mktemp("adapters")
    return {
        name: fine_tune(TrainingJob(bases[name], snapshot, WITH_TEXT, STEPS, home / name), store) for name in LAYERS
    }


def draw(model):
    return model.generate(["a red circle"], [1], steps=3, guidance_scale=2.0).int()


@pytest.mark.parametrize("name", list(LAYERS))
def test_an_adapter_with_text_encoders_draws_alike_in_ours_and_in_the_stock_pipeline(name, bases, adapters):
    base, adapter = bases[name], adapters[name]
    ours = draw(StableDiffusion.from_ref(base, adapter, precision="fp32"))
    for file in ("pytorch_lora_weights.safetensors", "adapter.safetensors"):  # diffusers' own, and kohya's
        stock = StableDiffusion.from_ref(base, precision="fp32")
        without_text = StableDiffusion.from_ref(base, precision="fp32")
        stock.pipeline().load_lora_weights(str(adapter.folder), weight_name=file, local_files_only=True)
        assert (ours - draw(stock)).abs().max() <= 1
        without_text.denoiser.load_lora_adapter(
            str(adapter.folder), prefix="unet", weight_name="pytorch_lora_weights.safetensors", local_files_only=True
        )
        assert (ours - draw(without_text)).abs().max() > 1  # else the encoders' share would not be seen here


@pytest.mark.parametrize("name", list(LAYERS))
def test_both_files_hold_the_encoders_layers_under_the_names_of_their_readers(name, adapters):
    folder = adapters[name].folder
    tensors = load_file(folder / "pytorch_lora_weights.safetensors")
    for part, count in LAYERS[name].items():
        ups = {key: value for key, value in tensors.items() if key.startswith(f"{part}.") and ".lora_B." in key}
        assert len(ups) == count
        assert all(key.startswith(f"{part}.text_model.encoder.layers.") for key in ups)
        assert all(value.abs().max() > 0 for value in ups.values())  # each layer has learnt
    kohya = load_file(folder / "adapter.safetensors")
    for prefix in KOHYA[name]:
        assert f"{prefix}text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight" in kohya
    for file in ("pytorch_lora_weights.safetensors", "adapter.safetensors"):
        facts = inspect_adapter(folder / file)
        assert LAYERS[name].items() <= facts.layers.items()
        assert facts.ranks[3] == sum(LAYERS[name].values())


@pytest.mark.parametrize("name", list(LAYERS))
def test_comfyui_adds_to_the_encoders_what_diffusers_adds(name, bases, adapters):
    base, adapter = bases[name], adapters[name]
    stock = StableDiffusion.from_ref(base, precision="fp32")
    clips = dict(zip(CLIPS[name], stock.text_encoders.values(), strict=True))
    reading = comfyui.read(adapter.folder / "adapter.safetensors", stock.denoiser, clips)
    assert reading.not_loaded == []
    before = {clip: {key: value.clone() for key, value in each.state_dict().items()} for clip, each in clips.items()}
    pipeline = stock.pipeline()
    pipeline.load_lora_weights(str(adapter.folder), local_files_only=True)
    pipeline.fuse_lora(components=list(stock.text_encoders))
    pipeline.unload_lora_weights()
    changed = 0
    for clip, encoder in clips.items():
        for key, value in encoder.state_dict().items():
            if torch.equal(value, before[clip][key]):
                continue
            found = reading.changes.pop(f"{clip}.transformer.text_model.{key.removeprefix('text_model.')}")
            torch.testing.assert_close(found, value - before[clip][key], atol=1e-6, rtol=1e-3)
            changed += 1
    assert changed == sum(LAYERS[name].values())
    assert not any("clip" in key for key in reading.changes)


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_a_resumed_run_over_text_encoders_gives_the_same_bytes(name, bases, store, snapshot, tmp_path):
    lora, base = LORA_WITH_DROPOUT.model_copy(update={"text_encoder_rank": 3}), bases[name]
    pictures = {"sample_every_steps": 4, "sample_prompts": ("a red circle",), "sample_inference_steps": 1}
    config = EVERYTHING.model_copy(update={"text_encoder_learning_rate": 0.01, **pictures})
    whole = fine_tune(TrainingJob(base, snapshot, lora, config, tmp_path / "whole"), store)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(
            TrainingJob(base, snapshot, lora, config, tmp_path / "cut"), store, Callbacks(on_metrics=interrupt_at(4))
        )
    resumed = fine_tune(TrainingJob(base, snapshot, lora, config, tmp_path / "cut"), store)
    assert contents(resumed.folder) == contents(whole.folder)


def test_each_group_has_its_own_rate_and_the_base_encoders_stay_as_they_are(
    base, store, snapshot, tmp_path, monkeypatch
):
    runs, train = [], Run.train
    monkeypatch.setattr(Run, "train", lambda run: (runs.append(run), train(run)))
    fine_tune(TrainingJob(base, snapshot, WITH_TEXT, STEPS, tmp_path / "run"), store)
    (run,) = runs
    assert [group.learning_rate for group in run.learner.groups] == [0.02, 0.05]
    rates = [(p["learning_rate"], p["text_encoder_learning_rate"]) for p in curve(tmp_path / "run") if "loss" in p]
    assert rates[0] == (0.02, 0.05) and all(text == pytest.approx(2.5 * rate) for rate, text in rates)
    denoiser, text = (set(group.parameters) for group in run.learner.groups)
    assert all(name.startswith("text_encoder.") for name in text)
    assert not any(name.startswith("text_encoder.") for name in denoiser)
    (part,) = family_of(base.folder).text_parts
    before = dict(parts.load_text_encoder(base, part).named_parameters())
    after = dict(run.loss.text.encoders["text_encoder"].named_parameters())
    frozen = {name.replace(".base_layer", ""): tensor for name, tensor in after.items() if ".lora_" not in name}
    assert frozen.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in frozen.items())
    # What validation measures is the adapted encoder.
    with torch.no_grad():
        adapted = run.validation.measure(run.denoiser)
        for name, tensor in run.loss.text.parameters.items():
            if ".lora_B." in name:
                tensor.zero_()
        assert not torch.equal(run.validation.measure(run.denoiser), adapted)


def test_text_embeddings_of_an_untrained_adapter_are_those_of_the_cache(base, store, snapshot, tmp_path):
    """The first measurement is of the bare base, whichever way its embeddings came to be."""
    losses = []
    for lora in (LORA, WITH_TEXT):
        seen = {}
        fine_tune(
            TrainingJob(base, snapshot, lora, STEPS, tmp_path / str(len(losses))),
            store,
            Callbacks(on_metrics=seen.setdefault),
        )
        losses.append(seen[0]["validation_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("name", list(LAYERS))
def test_the_update_reaches_the_model_in_memory_and_the_exported_ones(name, bases, adapters, tmp_path):
    base, adapter = bases[name], adapters[name]
    expected = draw(StableDiffusion.from_ref(base, adapter, precision="fp32"))
    assert (draw(StableDiffusion.from_ref(base, precision="fp32")) - expected).abs().max() > 1
    updated = LoRA(StableDiffusion.from_ref(base, precision="fp32")).update_parameters(adapter)
    assert (draw(updated) - expected).abs().max() <= 1
    for out, layout in (("model", None), ("model.safetensors", str(base.folder))):
        written = export_model(base, adapter, tmp_path / out)
        exported = load_base_model(BaseModelConfig(source=str(written), layout=layout), tmp_path)
        assert (draw(StableDiffusion.from_ref(exported, precision="fp32")) - expected).abs().max() <= 1


def test_settings_of_what_is_not_trained_do_not_name_a_run():
    other = CONFIG.model_copy(update={"text_encoder_learning_rate": 0.5})
    assert run_digest("b", "s", LORA, CONFIG) == run_digest("b", "s", LORA, other)
    digests = {
        run_digest("b", "s", lora, config) for lora, config in ((LORA, CONFIG), (WITH_TEXT, CONFIG), (WITH_TEXT, other))
    }
    assert len(digests) == 3


def test_what_cannot_be_adapted_is_refused_before_any_work(bases, store, snapshot, tmp_path):
    with pytest.raises(TargetModuleError, match=r"lora\.text_encoder_rank: 3 .* not for FLUX.1"):
        fine_tune(TrainingJob(bases["flux"], snapshot, WITH_TEXT, STEPS, tmp_path / "flux"), store)
    wide = LORA.model_copy(update={"text_encoder_rank": 17})
    with pytest.raises(TargetModuleError, match=r"lora\.text_encoder_rank: 17 is above the width .* \(16\)"):
        fine_tune(TrainingJob(bases["sd1"], snapshot, wide, STEPS, tmp_path / "wide"), store)
