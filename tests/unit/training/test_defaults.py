from __future__ import annotations

import pytest

from sdlora.config import PipelineConfig, ResolvedConfig, explain, resolve
from sdlora.lora.config import LoraConfig
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.training import defaults
from sdlora.training.config import TrainingConfig
from sdlora.training.defaults import resolve_lora, resolve_training
from tests.families import build
from tests.settings import filled_lora, filled_training


@pytest.fixture
def base_of(tmp_path, monkeypatch):
    """Tiny bases of a family, taken for large ones."""
    monkeypatch.setattr(defaults, "SMALL_BASE_PX", 1)

    def made(family):
        return load_base_model(BaseModelConfig(source=str(build(family, tmp_path / family))), tmp_path / "home")

    return made


@pytest.mark.parametrize(
    ("family", "rank", "dropout", "gamma", "norm"),
    [("sd2", 16, 0.1, 5, 1), ("sdxl", 32, 0.1, 5, 1), ("sd3", 16, 0.1, 0, 0.1), ("flux", 16, 0.05, 0, 1)],
)
def test_what_is_empty_follows_the_family_and_what_is_given_stays(
    family, rank, dropout, gamma, norm, base_of, tmp_path
):
    base = base_of(family)
    lora = resolve_lora(LoraConfig(), base)
    assert (lora.rank, lora.alpha) == (rank, rank)  # a scale of 1 at any rank
    given = resolve_lora(LoraConfig(rank=4, method="rslora"), base)
    assert (given.rank, given.alpha, given.method) == (4, 4, "rslora")
    assert resolve_lora(LoraConfig(alpha=8), base).alpha == 8
    training = resolve_training(TrainingConfig(), base, tmp_path)
    assert (training.caption_dropout, training.min_snr_gamma, training.max_grad_norm) == (dropout, gamma, norm)
    assert (training.learning_rate, training.batch_size, training.steps) == (1e-4, 4, 1500)
    assert training.aspect_buckets
    assert resolve_training(TrainingConfig(caption_dropout=0.3), base, tmp_path).caption_dropout == 0.3


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_resolving_twice_changes_nothing(family, base_of, tmp_path):
    base = base_of(family)
    once = resolve(PipelineConfig(training=TrainingConfig(min_snr_gamma=0)), base, tmp_path)
    assert resolve(once, base, tmp_path) == once
    assert ResolvedConfig.model_validate_json(once.model_dump_json()) == once


def test_what_follows_from_a_given_setting_follows_it(tmp_path):
    base = load_base_model(BaseModelConfig(), tmp_path)
    training = resolve_training(TrainingConfig(steps=40, learning_rate=1e-3, batch_size=8), base, tmp_path)
    assert (training.warmup_steps, training.text_encoder_learning_rate, training.prior_batch_size) == (2, 5e-4, 2)
    prodigy = resolve_training(TrainingConfig(optimizer="prodigy"), base, tmp_path)
    assert (prodigy.learning_rate, prodigy.schedule, prodigy.warmup_steps) == (1.0, "constant", 0)


def test_the_origins_say_what_an_empty_setting_follows_from(base_of, tmp_path):
    base = base_of("sdxl")

    def shown(lora):
        return {one.name: (one.value, one.origin) for one in explain(PipelineConfig(lora=lora), base, tmp_path)}

    assert shown(LoraConfig())["lora.rank"] == (32, "family sdxl")
    assert shown(LoraConfig())["lora.alpha"] == (32, "follows rank")
    assert shown(LoraConfig(rank=4))["lora.rank"] == (4, "file")
    assert shown(LoraConfig())["training.learning_rate"] == (1e-4, "family sdxl")


def test_the_embedded_base_gets_what_it_always_did(tmp_path):
    base = load_base_model(BaseModelConfig(), tmp_path)
    assert resolve_lora(LoraConfig(), base) == filled_lora(rank=16, alpha=16, targets="all")
    training = resolve_training(TrainingConfig(precision="fp32"), base, tmp_path)
    assert training == filled_training(precision="fp32", resolutions=(64,))
    assert (training.batch_size, training.learning_rate, training.caption_dropout) == (16, 2e-3, 0.1)
    assert (training.steps, training.warmup_steps, training.aspect_buckets) == (2000, 100, False)
