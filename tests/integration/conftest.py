"""Real Prefect on a temporary server, MLflow on a temporary SQLite file, a tiny real model, drawn images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdlora.config import PipelineConfig
from tests.browser import browser
from tests.stack import running_stack
from tests.tiny import draw_images, tiny_base_model
from tests.waiting import PATIENCE_SECONDS

__all__ = ["browser", "running_stack"]  # fixtures for all files of this folder


@pytest.fixture(scope="session", autouse=True)
def _prefect_server() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    from tasks import progress

    # The last progress of a stage is seen on the page, although the server is slow.
    with pytest.MonkeyPatch.context() as patch, prefect_test_harness(server_startup_timeout=600):
        patch.setattr(progress, "_LAST_SECONDS", PATIENCE_SECONDS)
        yield


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base_model(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def first_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = draw_images(tmp_path_factory.mktemp("first") / "images", 24, seed=0)
    (folder / "broken.png").write_bytes(b"this is no image")
    return folder


@pytest.fixture(scope="session")
def later_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_images(tmp_path_factory.mktemp("later") / "images", 16, seed=1)


@pytest.fixture(scope="session")
def settings(base_folder: Path, first_images: Path) -> dict[str, Any]:
    """The quickest configuration that still does everything."""
    return {
        "name": "shapes",
        "data": {"sources": [str(first_images)], "held_out_fraction": 0.4},
        "base_model": {"source": str(base_folder)},
        "lora": {"rank": 2, "targets": "attention"},
        "training": {
            "steps": 6,
            "batch_size": 4,
            "log_every_steps": 2,
            "validation_every_steps": 3,
            "precision": "fp32",
        },
        "evaluation": {
            "max_prompts": 8,
            "min_prompts": 2,
            "steps": 2,
            "denoising_steps": 2,
            "resamples": 100,
            "fid_resamples": 100,
            "shown_prompts": 3,
        },
    }


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state folder for all tests, each with styles of its own: new MLflow tables take seconds."""
    return tmp_path_factory.mktemp("state") / "home"


@pytest.fixture(scope="session")
def config(settings: dict[str, Any]) -> PipelineConfig:
    return PipelineConfig.model_validate(settings)
