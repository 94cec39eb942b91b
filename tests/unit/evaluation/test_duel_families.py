"""The duel asks the base's family how to draw and restore: it works with every one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import Snapshot, make_snapshot
from sdlora.evaluation.config import GateConfig
from sdlora.evaluation.contest import Contest
from sdlora.evaluation.duel import run_duel
from sdlora.evaluation.gate import decide
from sdlora.lora.attach import attach_lora
from sdlora.lora.manifest import AdapterOrigin
from sdlora.lora.save import save_adapter
from sdlora.lora.text import attach_to_text_encoder
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.families import family_of
from sdlora.models.files.sources import load_base_model
from sdlora.records.metrics import METRICS
from sdlora.store.image_store import ImageStore
from tests import families
from tests.settings import filled_lora
from tests.tiny import draw_images, tiny_base_model
from tests.unit.evaluation.test_duel import CONFIG, make_adapter
from tests.unit.lora.perturb import perturb_adapter

SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("sd2", "sd3", "flux")]


def _snapshot(store: ImageStore, folder: Path) -> Snapshot:
    data = DataConfig(near_duplicate_difference=0, suspect_difference=0, held_out_fraction=0.4)
    dataset = store.dataset("icons")
    collect(dataset, str(draw_images(folder / "images", 20)), data)
    clean(dataset, data)
    return make_snapshot(dataset, data)


def test_what_an_adapter_changes_in_the_text_encoder_is_part_of_its_scores(tmp_path: Path) -> None:
    base = load_base_model(BaseModelConfig(source=str(tiny_base_model(tmp_path / "tiny"))), tmp_path / "home")
    with ImageStore.open(tmp_path / "home") as store:
        snapshot = _snapshot(store, tmp_path)
        lora = filled_lora(rank=2, text_encoder_rank=2)
        (part,) = family_of(base.folder).text_parts
        encoder = perturb_adapter(attach_to_text_encoder(parts.load_text_encoder(base, part), part, lora, 0), scale=2.0)
        adapter = save_adapter(
            tmp_path / "adapter",
            attach_lora(parts.load_denoiser(base), lora),  # as attached: it changes nothing
            lora,
            base,
            AdapterOrigin("style", snapshot.digest, "run", "v_prediction", resolution_px=64),
            text_encoders={part.folder: encoder},
        )
        config = CONFIG.model_copy(update={"max_prompts": 4})
        duel = run_duel(Contest(base, snapshot, store, config), adapter, None, tmp_path / "duel")
    bare, adapted = (scores.metrics for scores in duel.scores.values())
    assert bare["kid"].value != adapted["kid"].value
    assert bare["denoising_psnr"].value != adapted["denoising_psnr"].value


@pytest.mark.parametrize("name", ["sdxl", *SLOW])
def test_an_adapter_of_the_family_is_compared_with_its_bare_base(name: str, tmp_path: Path) -> None:
    base = load_base_model(BaseModelConfig(source=str(families.build(name, tmp_path / name))), tmp_path / "home")
    with ImageStore.open(tmp_path / "home") as store:
        snapshot = _snapshot(store, tmp_path)
        candidate = make_adapter(tmp_path / "adapter", base, snapshot, 0.3)
        config = CONFIG.model_copy(update={"max_prompts": 4})
        duel = run_duel(Contest(base, snapshot, store, config), candidate, None, tmp_path / "duel")
    assert duel.contestants == ("base", "candidate")
    bare, adapted = (scores.metrics for scores in duel.scores.values())
    assert bare.keys() == adapted.keys() == METRICS.keys()
    # The adapter shows in what is drawn from noise and in what is restored from half of it.
    assert bare["kid"].value != adapted["kid"].value
    assert bare["denoising_psnr"].value != adapted["denoising_psnr"].value
    assert bare["reconstruction_psnr"].value == adapted["reconstruction_psnr"].value
    assert decide(duel, GateConfig()).reasons
