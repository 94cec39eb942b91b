"""Every family through the whole trainer: trained, stopped, resumed, written, and drawn by the stock pipeline."""

from __future__ import annotations

import json
import weakref

import pytest
import torch

from sdlora.lora.attach import adapter_parameters, attach_lora
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.families import family_of
from sdlora.models.files.sources import load_base_model
from sdlora.models.stable_diffusion import StableDiffusion
from sdlora.store.image_store import ImageStore
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.inputs.encoded import Encoding, encode_rows
from sdlora.training.job import TrainingJob
from sdlora.training.learning.frozen_weights import cast_frozen_weights
from sdlora.training.learning.loss import DenoisingLoss
from tests import families
from tests.settings import filled_lora
from tests.unit.training.setting import CONFIG, Callbacks, fill_store
from tests.unit.training.steps import batch_of
from tests.unit.training.test_fine_tuning import contents, interrupt_at

CPU = torch.device("cpu")
LORA = filled_lora(rank=4, alpha=6, targets="attention+ff")
# A rate at which three steps on an untrained base already show in what it draws.
STEPS = CONFIG.model_copy(update={"steps": 3, "precision": "fp32", "learning_rate": 0.05})
FAMILIES = list(families.BUILDERS)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    home = tmp_path_factory.mktemp("families")
    folders = {name: families.build(name, home / name) for name in FAMILIES}
    return {name: load_base_model(BaseModelConfig(source=str(folder)), home) for name, folder in folders.items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_trained_resumed_and_drawn_by_the_stock_pipeline(name, bases, store, snapshot, tmp_path):
    base = bases[name]
    adapter = fine_tune(TrainingJob(base, snapshot, LORA, STEPS, tmp_path / "whole"), store)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(
            TrainingJob(base, snapshot, LORA, STEPS, tmp_path / "cut"), store, Callbacks(on_metrics=interrupt_at(1))
        )
    resumed = fine_tune(TrainingJob(base, snapshot, LORA, STEPS, tmp_path / "cut"), store)
    assert contents(resumed.folder) == contents(adapter.folder)
    points = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    values = torch.tensor([value for point in points for value in point.values()])
    assert values.isfinite().all()
    assert any("validation_loss" in point for point in points)

    def draw(model):
        return model.generate(["a red circle"], [1], steps=3, guidance_scale=2.0).int()

    ours = draw(StableDiffusion.from_ref(base, adapter, precision="fp32"))
    bare = StableDiffusion.from_ref(base, precision="fp32")
    assert (ours - draw(bare)).abs().float().mean() > 1
    bare.pipeline().load_lora_weights(str(adapter.folder), local_files_only=True)  # shares its layers
    assert (ours - draw(bare)).abs().max() <= 1


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_of_a_family_gives_gradients_to_its_adapter_alone(name, bases, store, snapshot):
    base = bases[name]
    denoiser = attach_lora(parts.load_denoiser(base), LORA)
    with torch.no_grad():
        for tensor in adapter_parameters(denoiser).values():
            tensor.add_(0.01)
    loss = DenoisingLoss.of_base(base, 5.0, "fp32", CPU)
    # 128 px: at 64, self-attention of version 2's innermost level has one position, and nothing to choose from.
    encoded = encode_rows(base, snapshot.train, store, Encoding((128,)), device=CPU)
    loss.weighted(denoiser, batch_of(encoded, loss.objective)).backward()
    gradients = {key: parameter.grad for key, parameter in denoiser.named_parameters() if parameter.grad is not None}
    assert gradients.keys() == adapter_parameters(denoiser).keys()
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    # Every adapted layer takes part in the prediction, but the text's queries in the last block of version 3.
    idle = {key.split(".lora_")[0] for key, gradient in gradients.items() if gradient.abs().sum() == 0}
    assert idle == ({"transformer_blocks.2.attn.add_q_proj"} if name == "sd3" else set())


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_a_base_stored_in_bf16_is_never_held_larger_and_computes_the_same(name, bases, store, snapshot, tmp_path):
    pipeline = family_of(bases[name].folder).pipeline_class.from_pretrained(bases[name].folder, local_files_only=True)
    for part in ("transformer", "vae"):
        getattr(pipeline, part).to(torch.bfloat16)
    pipeline.save_pretrained(tmp_path / "half")
    base = load_base_model(BaseModelConfig(source=str(tmp_path / "half")), tmp_path)
    loss = DenoisingLoss.of_base(base, None, "bf16", CPU)
    batch = batch_of(encode_rows(base, snapshot.train, store, Encoding((64,)), device=CPU), loss.objective)
    as_stored, as_fp32 = (
        attach_lora(parts.load_denoiser(base, CPU, precision), LORA) for precision in ("bf16", "fp32")
    )
    cast_frozen_weights(as_fp32, "bf16")
    cast_frozen_weights(as_stored, "bf16")
    dtypes = [{key: tensor.dtype for key, tensor in model.state_dict().items()} for model in (as_stored, as_fp32)]
    assert dtypes[0] == dtypes[1]
    assert {tensor.dtype for tensor in adapter_parameters(as_stored).values()} == {torch.float32}
    assert torch.equal(loss.per_image(as_stored, batch), loss.per_image(as_fp32, batch))


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_checkpointing_reaches_every_familys_denoiser(name, bases, store, snapshot):
    loss = DenoisingLoss.of_base(bases[name], None, "fp32", CPU)
    batch = batch_of(encode_rows(bases[name], snapshot.train, store, Encoding((64,)), device=CPU), loss.objective)
    gradients = []
    for checkpointing in (False, True):
        denoiser = attach_lora(parts.load_denoiser(bases[name]), LORA).train()
        if checkpointing:
            denoiser.enable_gradient_checkpointing()
            assert any(getattr(module, "gradient_checkpointing", False) for module in denoiser.modules())
        loss.weighted(denoiser, batch).backward()
        gradients.append([parameter.grad for parameter in adapter_parameters(denoiser).values()])
    assert any(gradient.abs().sum() > 0 for gradient in gradients[0])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_text_encoders_are_let_go_one_after_the_other(bases, snapshot, tmp_path, monkeypatch):
    """The largest of them may fill the memory alone, and the denoiser comes after all of them."""
    alive, load_text_encoder = weakref.WeakSet(), parts.load_text_encoder

    def load(*arguments):
        assert not alive
        encoder = load_text_encoder(*arguments)
        alive.add(encoder)
        return encoder

    monkeypatch.setattr(parts, "load_text_encoder", load)
    with ImageStore.open(tmp_path / "home") as store:
        rows = fill_store(store, tmp_path / "images", count=4).rows
        encode_rows(bases["sd3"], rows, store, Encoding((64,)), device=CPU)
    assert not alive


def test_xl_is_told_the_size_that_each_training_image_had(bases, store, snapshot):
    rows = snapshot.train[:2]
    encoded = encode_rows(bases["sdxl"], rows, store, Encoding((32,)), device=CPU)
    for row in rows:  # drawn with 64 px
        conditioning = encoded.conditioning(row, 0, row.captions[0])
        assert conditioning["time_ids"].tolist() == [64, 64, 0, 0, 32, 32]
