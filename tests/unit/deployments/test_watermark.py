from __future__ import annotations

import os
from pathlib import Path

import pytest

from deployments.styles.watermark import remember, unchanged_release
from sdlora.config import PipelineConfig
from sdlora.store.image_store import ImageStore
from sdlora.store.inputs import dataset_digest
from tasks.results import Release, RunRef
from tests.tiny import draw_images


@pytest.fixture
def finished(tmp_path: Path) -> tuple[PipelineConfig, Path]:
    """A state folder after a finished run."""
    home = tmp_path / "home"
    run = RunRef(digest="d" * 64, folder=home / "runs" / "style" / "d")
    release = Release(name="style", version=1, new=True, promoted=True, reasons=("better",), run=run)
    for file in (release.report, release.grid):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    with ImageStore.open(home) as store, store.read() as session:
        release = release.model_copy(update={"inputs": dataset_digest(session, "style")})
    config = PipelineConfig.model_validate({"data": {"sources": [str(draw_images(tmp_path / "images", 3))]}})
    remember(config, home, release)
    return config, home


def test_nothing_touched_gives_the_last_release_as_an_old_one(finished):
    release = unchanged_release(*finished)
    assert release is not None
    assert (release.version, release.new, release.promoted) == (1, False, True)


def test_before_the_first_run_there_is_nothing_to_repeat(tmp_path):
    assert unchanged_release(PipelineConfig(), tmp_path) is None


@pytest.mark.parametrize(
    "change", ["new image", "changed image", "caption", "database", "settings", "report", "registry"]
)
def test_any_change_sends_the_question_to_the_flow(finished, change):
    config, home = finished
    images = Path(config.data.sources[0])
    if change == "new image":
        (images / "new.png").write_bytes(b"x")
    elif change == "changed image":
        image = next(images.glob("*.png"))
        size = image.stat().st_size
        image.write_bytes(b"y" * size)
        os.utime(image, ns=(1, 1))
    elif change == "caption":
        (images / "metadata.jsonl").write_text("")
    elif change == "database":
        (home / "images.db").write_text("xx")
    elif change == "settings":
        config = config.model_copy(update={"lora": config.lora.model_copy(update={"rank": 3})})
    elif change == "report":
        next(home.rglob("report.html")).unlink()
    else:
        (home / "mlflow").mkdir()
        (home / "mlflow" / "mlflow.db").write_text("x")
    assert unchanged_release(config, home) is None


def test_files_that_retention_removed_before_the_run_are_no_news(finished):
    config, home = finished
    release = unchanged_release(config, home)
    release.grid.unlink()
    assert unchanged_release(config, home) is None  # the flow writes it again, or finds that it was removed
    remember(config, home, release)
    assert unchanged_release(config, home) is not None


def test_a_registry_elsewhere_is_always_asked(finished, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert unchanged_release(*finished) is None
