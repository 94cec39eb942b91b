from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from sdlora.core.errors import TrainingError
from sdlora.core.refs import ADAPTER_WEIGHTS
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import make_snapshot
from sdlora.store.image_store import ImageStore
from sdlora.training.job import TrainingJob
from sdlora.training.launch import run_job
from tests.tiny import draw_images
from tests.unit.training.setting import CONFIG, LORA, Callbacks


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A store with a recorded snapshot: processes of their own can only be told its digest."""
    home = tmp_path_factory.mktemp("launch")
    config = DataConfig(sources=(str(draw_images(home / "images", 16)),))
    with ImageStore.open(home / "home") as store:
        dataset = store.dataset("icons")
        collect(dataset, config.sources[0], config)
        clean(dataset, config)
        yield store, make_snapshot(dataset, config)


def job(base, prepared, folder: Path, **changes):
    training = CONFIG.model_copy(update={"precision": "fp32", **changes})
    return TrainingJob(base, prepared[1], LORA, training, folder)


def curve(folder: Path):
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in point.items() if name != "images_per_second"} for point in points]


def updates(folder: Path):
    """B A of every layer."""
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    downs = {name.removesuffix(".lora_A.weight"): tensor for name, tensor in tensors.items() if ".lora_A." in name}
    return {name: tensors[f"{name}.lora_B.weight"].flatten(1) @ down.flatten(1) for name, down in downs.items()}


def test_one_process_runs_here(base, prepared, tmp_path):
    seen = []
    adapter = run_job(
        job(base, prepared, tmp_path / "run"), prepared[0], Callbacks(on_metrics=lambda *call: seen.append(call))
    )
    assert adapter.folder == tmp_path / "run" / "adapter"
    assert [step for step, values in seen if "loss" in values] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_two_processes_train_the_adapter_that_one_does(base, prepared, tmp_path):
    store, seen = prepared[0], []
    # Two shapes of pictures (the second resolution), unequal passes and prior images are shared as well.
    settings = {"batch_size": 4, "resolutions": (64, 48), "early_stop_patience": 50}
    settings |= {"prior_weight": 0.5, "prior_prompts": ("a blue bar",), "prior_images": 4, "prior_batch_size": 3}
    alone = run_job(job(base, prepared, tmp_path / "one", **settings), store)
    pair = run_job(
        job(base, prepared, tmp_path / "two", **settings, num_processes=2),
        store,
        Callbacks(on_metrics=lambda *call: seen.append(call)),
    )
    ours, theirs = (updates(adapter.folder) for adapter in (alone, pair))
    assert ours.keys() == theirs.keys()
    assert json.loads((tmp_path / "two" / "config.json").read_text())["num_processes"] == 2
    for name, update in ours.items():
        # Sums in another order, amplified by AdamW where a gradient is nearly zero: one part in a hundred.
        assert (update - theirs[name]).norm() < 0.01 * update.norm(), name
    pairs = zip(curve(tmp_path / "one"), curve(tmp_path / "two"), strict=True)
    assert all(one == pytest.approx(two, rel=1e-2) for one, two in pairs)
    assert len([call for call in seen if "loss" in call[1]]) == 6  # the first process alone reports


@pytest.mark.slow
def test_the_failure_of_one_process_ends_all_with_its_message(base, prepared, tmp_path):
    ruinous = job(base, prepared, tmp_path / "run", learning_rate=1e30, warmup_steps=0, num_processes=2)
    with pytest.raises(TrainingError, match=r"the loss is nan.*at step \d.*on the images"):
        run_job(ruinous, prepared[0])
    assert not (tmp_path / "run" / "adapter").exists()
