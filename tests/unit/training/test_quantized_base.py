"""Adapters of a base that is held in 8 or 4 bits: the same run, in less memory."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest
import torch

from sdlora.core.errors import ConfigError
from sdlora.lora.attach import attach_lora
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.models.stable_diffusion import StableDiffusion
from sdlora.training.config import ResolvedTraining
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.full import fine_tune_fully
from sdlora.training.identity import run_digest
from sdlora.training.inputs.encoded import Encoding, encode_rows
from sdlora.training.job import TrainingJob
from sdlora.training.learning import preflight
from sdlora.training.learning.loss import DenoisingLoss
from tests import families
from tests.settings import filled_lora
from tests.unit.training.setting import CONFIG, LORA, Callbacks
from tests.unit.training.steps import loss_and_gradient, moved
from tests.unit.training.test_fine_tuning import contents, curve, interrupt_at

needs_bitsandbytes = pytest.mark.skipif(
    not importlib.util.find_spec("bitsandbytes"), reason="the extra `quantize` is not installed"
)
KINDS = ("int8", "nf4")
STEPS = CONFIG.model_copy(update={"steps": 4, "precision": "fp32", "learning_rate": 0.02})
# Bytes a weight: a factor a row in int8; in nf4 a byte for every 64 weights, and four for every 256 of these.
BYTES = {None: 4, "int8": 1, "nf4": 0.5}


def held_bytes(layer):
    return layer.weight.numel() * layer.weight.element_size()


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    home = tmp_path_factory.mktemp("flux")
    return load_base_model(BaseModelConfig(source=str(families.build("flux", home / "flux"))), home)


def attached(base, quantize, lora=LORA, precision="fp32"):
    return moved(attach_lora(parts.load_denoiser(base, None, precision, quantize), lora)).train()


@needs_bitsandbytes
@pytest.mark.parametrize("kind", KINDS)
def test_layers_in_the_blocks_take_a_quarter_or_an_eighth_and_the_others_stay(kind, flux):
    plain, quantized = (dict(parts.load_denoiser(flux, None, "fp32", k).named_modules()) for k in (None, kind))
    inside = [name for name, layer in plain.items() if isinstance(layer, torch.nn.Linear) and "blocks." in name]
    outside = [name for name, layer in plain.items() if isinstance(layer, torch.nn.Linear) and "blocks." not in name]
    assert len(inside) > 20 and len(outside) > 4
    for name in inside:
        assert held_bytes(quantized[name]) == plain[name].weight.numel() * BYTES[kind], name
    for name in outside:
        assert torch.equal(quantized[name].weight, plain[name].weight), name


@needs_bitsandbytes
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("kind", "method"), [("int8", "lora"), ("nf4", "lora"), ("nf4", "dora")])
def test_loss_and_gradients_are_those_of_the_weights_up_to_their_rounding(kind, method, precision, base):
    lora = filled_lora(method=method, rank=2, targets="attention+ff")
    loss, gradient = loss_and_gradient(base, attached(base, None, lora), "fp32")
    rounded, found = loss_and_gradient(base, attached(base, kind, lora, precision), precision)
    assert rounded != loss  # the layers are in use
    assert rounded.item() == pytest.approx(loss.item(), rel=2e-2 if kind == "nf4" else 4e-3)
    assert torch.cosine_similarity(found, gradient, dim=0) > (0.98 if kind == "nf4" else 0.999)


@needs_bitsandbytes
@pytest.mark.parametrize("kind", KINDS)
def test_the_preflight_counts_what_images_keep_and_not_the_weights(kind, base, store, snapshot):
    encoded = encode_rows(base, snapshot.train, store, Encoding((64,)), device=torch.device("cpu"))
    example, loss = preflight._largest_image([encoded]), DenoisingLoss.of_base(base, 5.0, "fp32", torch.device("cpu"))
    kept = {
        (kind, count): preflight._kept_bytes(attached(base, kind), loss, preflight._repeated(example, count))
        for kind in (None, kind)
        for count in (1, 4)
    }
    assert kept[kind, 4] > 3.5 * kept[kind, 1]  # nothing but images
    assert 0.6 < kept[kind, 4] / kept[None, 4] < 1.2


@needs_bitsandbytes
@pytest.mark.parametrize("kind", KINDS)
def test_a_measurement_leaves_the_gradients_that_follow_as_they_were(kind, base):
    """bitsandbytes repacks 4-bit weights in evaluation mode on some processors, for a product without a gradient."""
    denoiser = attached(base, kind)
    expected = loss_and_gradient(base, denoiser, "fp32")
    denoiser.eval()
    with torch.no_grad():
        denoiser(torch.randn(1, 4, 16, 16), torch.tensor([3]), torch.randn(1, 32, 16))
    found = loss_and_gradient(base, denoiser.train(), "fp32")
    assert found[0] == expected[0]
    assert torch.equal(found[1], expected[1])


@needs_bitsandbytes
@pytest.mark.parametrize(("kind", "precision"), [("int8", "fp32"), ("nf4", "bf16")])
def test_a_run_learns_resumes_to_the_byte_and_its_files_are_for_the_base_as_it_is(
    kind, precision, base, store, snapshot, tmp_path
):
    config, quantized = STEPS.model_copy(update={"precision": precision}), base.model_copy(update={"quantize": kind})
    plain = fine_tune(TrainingJob(base, snapshot, LORA, config, tmp_path / "plain"), store)
    adapter = fine_tune(TrainingJob(quantized, snapshot, LORA, config, tmp_path / "whole"), store)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(
            TrainingJob(quantized, snapshot, LORA, config, tmp_path / "cut"),
            store,
            Callbacks(on_metrics=interrupt_at(2)),
        )
    resumed = fine_tune(TrainingJob(quantized, snapshot, LORA, config, tmp_path / "cut"), store)
    assert contents(resumed.folder) == contents(adapter.folder)
    assert adapter.run_digest == run_digest(
        base.digest, snapshot.training_digest, LORA, _resolved(tmp_path / "whole"), kind
    )
    assert len({adapter.run_digest, plain.run_digest}) == 2 and adapter.digest != plain.digest
    assert adapter.base_digest == base.digest
    losses = [[point["loss"] for point in curve(tmp_path / run) if "loss" in point] for run in ("plain", "whole")]
    assert losses[1] == pytest.approx(losses[0], rel=2e-2) and losses[1] != losses[0]

    def draw(*adapters):
        return StableDiffusion.from_ref(quantized, *adapters, precision="fp32").generate(["a red circle"], [1], steps=2)

    assert not torch.equal(draw(adapter), draw())


def _resolved(folder):
    return ResolvedTraining.model_validate(json.loads((folder / "config.json").read_text())["training"])


@needs_bitsandbytes
@pytest.mark.parametrize(("kind", "method"), [("int8", "rslora"), ("nf4", "dora")])
def test_a_transformer_is_trained_too(kind, method, flux, store, snapshot, tmp_path):
    lora = filled_lora(method=method, rank=2, targets="attention+ff")
    adapter = fine_tune(
        TrainingJob(flux.model_copy(update={"quantize": kind}), snapshot, lora, STEPS, tmp_path / "run"), store
    )
    losses = [point["loss"] for point in curve(tmp_path / "run") if "loss" in point]
    assert len(losses) == 4 and torch.tensor(losses).isfinite().all()
    drawn = [
        StableDiffusion.from_ref(flux, *adapters, precision="fp32").generate(["a red circle"], [1], steps=2)
        for adapters in ((), (adapter,))
    ]
    assert not torch.equal(*drawn)


def test_a_missing_library_is_said_before_any_work(base, store, snapshot, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not installed
    quantized = base.model_copy(update={"quantize": "int8"})
    with pytest.raises(ConfigError, match=r"base_model\.quantize: int8 needs .*pip install bitsandbytes.* null"):
        fine_tune(TrainingJob(quantized, snapshot, LORA, STEPS, tmp_path / "run"), store)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("kind", "method"), [("int8", "dora"), *((kind, method) for kind in KINDS for method in ("pissa", "loha", "lokr"))]
)
def test_methods_that_cannot_be_computed_beside_it_are_refused(kind, method, base, store, snapshot, tmp_path):
    lora = filled_lora(method=method, rank=2, targets="attention")
    quantized = base.model_copy(update={"quantize": kind})
    with pytest.raises(ConfigError, match=rf"base_model\.quantize: {kind} .* lora\.method {method}: .*to lora"):
        fine_tune(TrainingJob(quantized, snapshot, lora, STEPS, tmp_path / "run"), store)
    assert not (tmp_path / "run" / "config.json").exists()


def test_regular_fine_tuning_of_a_quantised_base_is_refused(base, store, snapshot, tmp_path):
    quantized = base.model_copy(update={"quantize": "int8"})
    with pytest.raises(ConfigError, match=r"base_model\.quantize: int8 .*regular fine-tuning.*null"):
        fine_tune_fully(TrainingJob(quantized, snapshot, None, STEPS, tmp_path / "run"), store)
    assert not (tmp_path / "run" / "config.json").exists()
