"""The duel asks the base's family how to draw and restore: it works with every one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdlora.data import DataConfig, clean, collect, make_snapshot
from sdlora.evaluation import GateConfig, decide, run_duel
from sdlora.evidence import METRICS
from sdlora.models import BaseModelConfig, load_base_model
from sdlora.store import ImageStore
from tests import families
from tests.tiny import draw_images
from tests.unit.evaluation.test_duel import CONFIG, make_adapter

SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("sd2", "sd3", "flux")]


@pytest.mark.parametrize("name", ["sdxl", *SLOW])
def test_an_adapter_of_the_family_is_compared_with_its_bare_base(name: str, tmp_path: Path) -> None:
    base = load_base_model(BaseModelConfig(source=str(families.build(name, tmp_path / name))), tmp_path / "home")
    with ImageStore.open(tmp_path / "home") as store:
        data = DataConfig(near_duplicate_difference=0, suspect_difference=0, held_out_fraction=0.4)
        collect(store, str(draw_images(tmp_path / "images", 20)), data)
        clean(store, data)
        snapshot = make_snapshot(store, data)
        candidate = make_adapter(tmp_path / "adapter", base, snapshot, 0.3)
        config = CONFIG.model_copy(update={"max_prompts": 4})
        duel = run_duel(base, candidate, None, snapshot, store, config, tmp_path / "duel")
    assert duel.contestants == ("base", "candidate")
    bare, adapted = (scores.metrics for scores in duel.scores.values())
    assert bare.keys() == adapted.keys() == METRICS.keys()
    # The adapter shows in what is drawn from noise and in what is restored from half of it.
    assert bare["kid"].value != adapted["kid"].value
    assert bare["denoising_psnr"].value != adapted["denoising_psnr"].value
    assert bare["reconstruction_psnr"].value == adapted["reconstruction_psnr"].value
    assert decide(duel, GateConfig()).reasons
