from __future__ import annotations

import pytest

from sdlora.config import PipelineConfig
from sdlora.effective import effective_settings
from sdlora.lora import LoraConfig
from sdlora.models import BaseModelConfig, load_base_model
from sdlora.training import TrainingConfig, presets, settle, settle_lora
from tests.families import build


@pytest.fixture
def base_of(tmp_path, monkeypatch):
    """Tiny bases of a family, taken for large ones."""
    monkeypatch.setattr(presets, "SMALL_BASE_PX", 1)

    def made(family):
        return load_base_model(BaseModelConfig(source=str(build(family, tmp_path / family))), tmp_path / "home")

    return made


@pytest.mark.parametrize(
    ("family", "rank", "dropout"), [("sd2", 16, 0.1), ("sdxl", 32, 0.1), ("sd3", 16, 0.1), ("flux", 16, 0.05)]
)
def test_rank_and_caption_dropout_follow_the_family_unless_they_are_given(family, rank, dropout, base_of, tmp_path):
    base = base_of(family)
    lora = settle_lora(base, LoraConfig())
    assert (lora.rank, lora.alpha) == (rank, rank)  # a scale of 1 at any rank
    assert settle_lora(base, lora) == lora
    given = settle_lora(base, LoraConfig(rank=4, method="rslora"))
    assert (given.rank, given.alpha, given.method) == (4, 4, "rslora")
    assert settle_lora(base, LoraConfig(alpha=8)).alpha == 8
    assert settle(base, TrainingConfig(), tmp_path).caption_dropout == dropout
    assert settle(base, TrainingConfig(caption_dropout=0.3), tmp_path).caption_dropout == 0.3


def test_the_effective_settings_say_that_the_rank_is_the_familys(base_of, tmp_path):
    base = base_of("sdxl")

    def shown(lora):
        settings = effective_settings(PipelineConfig(lora=lora), base, tmp_path)
        return {one.name: (one.value, one.origin) for one in settings}

    assert shown(LoraConfig())["lora.rank"] == (32, "family sdxl")
    assert shown(LoraConfig())["lora.alpha"] == (32, "default")
    assert shown(LoraConfig(rank=4))["lora.rank"] == (4, "file")
    assert shown(LoraConfig())["training.learning_rate"] == (1e-4, "family sdxl")


def test_the_embedded_base_gets_what_it_always_did(tmp_path):
    base = load_base_model(BaseModelConfig(), tmp_path)
    assert settle_lora(base, LoraConfig()).model_dump() == LoraConfig().model_dump()
    assert LoraConfig().rank == 16
    training = settle(base, TrainingConfig(precision="fp32"), tmp_path)
    assert training == TrainingConfig(precision="fp32", resolutions=(64,))
    assert (training.batch_size, training.learning_rate, training.caption_dropout) == (16, 2e-3, 0.1)
