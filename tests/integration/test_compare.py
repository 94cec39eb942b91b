"""LoRA against regular fine-tuning through real Prefect and MLflow, on a tiny real model."""

from __future__ import annotations

import html
import json
from pathlib import Path
from statistics import median

import mlflow
import psutil
import pytest
from sqlalchemy import func, select

from flows.compare import compare
from flows.retrain import retrain
from sdlora.config import PipelineConfig
from sdlora.core.errors import ConfigError, TargetModuleError
from sdlora.core.files import file_sha256
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.models.stable_diffusion import StableDiffusion
from sdlora.records.comparison import COMPARED, load_comparison
from sdlora.store.image_store import ImageStore
from sdlora.store.tables.images import ImageTable
from tasks.compare import resolve_methods
from tests.settings import run_flow


def test_every_method_is_trained_once_scored_with_the_base_and_shown_on_one_page(
    config: PipelineConfig, tmp_path: Path
) -> None:
    neutral = ("a red circle", "<script>alert(1)</script>", "a green bar")
    found, page = run_flow(compare, config, tmp_path, methods=("lora", "full"), neutral_prompts=neutral)
    assert [one.name for one in found.contestants] == ["base", "lora", "full"]
    base, lora, full = found.contestants
    assert all(one.metrics.keys() == COMPARED.keys() for one in found.contestants)
    assert (base.costs.steps, lora.costs.steps, full.costs.steps) == (0, 6, 6)
    assert min(lora.costs.seconds, full.costs.seconds) > 0
    for one in (lora, full):  # of a process that did nothing else: this one holds far more by now
        assert 0 < one.costs.training_peak_bytes < one.costs.process_peak_bytes < psutil.Process().memory_info().rss
    assert 0 < lora.costs.trained_parameters < full.costs.trained_parameters
    assert 0 < lora.costs.file_bytes < full.costs.file_bytes
    assert base.metrics["drift"].value == pytest.approx(0, abs=1e-6)
    assert full.metrics["drift"].value > 0
    assert found.differences["full"]["drift"].value > 0

    assert found.against_first.keys() == {"full"}
    assert found.against_first["full"]["drift"].value == pytest.approx(
        full.metrics["drift"].value - lora.metrics["drift"].value
    )

    text = page.read_text()
    assert "<script>" not in text
    assert html.escape("regular fine-tuning") in text
    assert "data:image/" in text
    assert str(tmp_path) not in text
    assert load_comparison(page.parent) == found

    weights = sorted((tmp_path / "runs").rglob("*.safetensors"))
    before = {path: file_sha256(path) for path in weights}
    again, _ = run_flow(compare, config, tmp_path, methods=("lora", "full"), neutral_prompts=neutral)
    assert again == found
    assert {path: file_sha256(path) for path in weights} == before

    model = next((tmp_path / "runs").rglob("model_index.json")).parent
    trained = StableDiffusion.from_ref(load_base_model(BaseModelConfig(source=str(model)), tmp_path))
    assert trained.generate_image("a red circle", steps=2).size == (64, 64)

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("shapes-compare").experiment_id])
    assert {run.data.tags.get("method") for run in runs} == {"lora", "full", None}
    assert all("train_seconds" in run.data.metrics for run in runs if "method" in run.data.tags)


@pytest.mark.slow
def test_with_equal_seconds_each_method_gets_the_steps_that_the_time_of_the_first_allows(
    config: PipelineConfig, tmp_path: Path
) -> None:
    found, page = run_flow(compare, config, tmp_path, methods=("full", "lora"), equal="seconds")
    _, full, lora = found.contestants
    assert full.costs.steps == 6
    rates = {}
    for file in (tmp_path / "runs" / "shapes-trial-compare").glob("*/metrics.jsonl"):
        points = [json.loads(line) for line in file.read_text().splitlines()]
        speeds = [point["images_per_second"] for point in points if "images_per_second" in point]
        assert len(speeds) == 8
        rates["full" if (file.parent / "model").is_dir() else "lora"] = median(speeds[1:])
    assert lora.costs.steps == max(1, round(6 * rates["lora"] / rates["full"]))
    again, _ = run_flow(compare, config, tmp_path, methods=("full", "lora"), equal="seconds")
    assert again == found
    assert "budget is" in page.read_text()


def test_a_method_that_cannot_be_trained_is_refused_before_any_image_is_collected(
    config: PipelineConfig, tmp_path: Path
) -> None:
    dropping = config.model_copy(update={"lora": config.lora.model_copy(update={"dropout": 0.1})})
    with pytest.raises(ConfigError, match=r"methods: loha does not go with .*dropout: 0\.1 cannot be used"):
        run_flow(compare, dropping, tmp_path, methods=("lora", "loha"))
    too_wide = config.model_copy(update={"lora": config.lora.model_copy(update={"rank": 64})})
    with pytest.raises(TargetModuleError, match=r"lora\.rank: 64"):
        run_flow(retrain, too_wide, tmp_path)
    with ImageStore.open(tmp_path) as store, store.read() as session:  # the failure is a row of it
        assert session.scalar(select(func.count()).select_from(ImageTable)) == 0
    assert not list((tmp_path / "mlflow").rglob("*.db")) and not list((tmp_path / "blobs").rglob("*.*"))


def test_methods_share_the_settings_and_a_whole_model_learns_at_a_tenth_of_the_rate(
    config: PipelineConfig, base_folder: Path, tmp_path: Path
) -> None:
    base = load_base_model(BaseModelConfig(source=str(base_folder)), tmp_path)
    methods = resolve_methods.fn(("dora", "full"), base, config, None, tmp_path)
    lora, with_lora, with_full = methods["dora"].lora, methods["dora"].training, methods["full"].training
    assert lora is not None and methods["full"].lora is None
    assert (lora.method, lora.rank, lora.targets) == ("dora", 2, "attention")
    assert with_full.learning_rate == pytest.approx(with_lora.learning_rate / 10)
    assert with_full.model_copy(update={"learning_rate": 1.0}) == with_lora.model_copy(update={"learning_rate": 1.0})
    given = resolve_methods.fn(("full",), base, config, 3e-5, tmp_path)
    assert given["full"].training.learning_rate == 3e-5
    with pytest.raises(ConfigError, match=r"methods: textual is no training method. Known: lora.*full"):
        resolve_methods.fn(("textual",), base, config, None, tmp_path)
