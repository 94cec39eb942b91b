"""The demo in its quickest honest form: the command, the embedded base model and the bundled images, few steps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from deployments.environment import DEMO_CONFIG
from sdlora.assets import DEMO_FOLDER
from sdlora.records.duel import load_duel
from sdlora.store.image_store import ImageStore


def sdlora(*arguments: str) -> str:
    # Not this process's Prefect: the command starts a server of its own, as it does for a user.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-m", "deployments.cli", *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_a_short_demo_moves_the_base_towards_the_new_style_and_does_not_repeat_itself(tmp_path: Path) -> None:
    settings = yaml.safe_load(DEMO_CONFIG.read_text())
    settings["data"]["sources"] = [str(DEMO_FOLDER / "first"), str(DEMO_FOLDER / "bad")]
    settings["training"] = {"steps": 30, "precision": "fp32"}
    settings["evaluation"] = {"max_prompts": 16, "steps": 6, "resamples": 200}
    config, home = tmp_path / "short.yaml", tmp_path / "home"
    config.write_text(yaml.safe_dump(settings))

    sdlora("run", "--config", str(config), "--home", str(home))

    (evaluation,) = home.glob("runs/*/*/evaluation")
    scores = load_duel(evaluation).scores
    assert scores["candidate"].metrics["kid"].value < scores["base"].metrics["kid"].value
    report = (evaluation.parent / "release" / "report.html").read_text()
    assert "an emoji of" in report
    with ImageStore.open(home) as store:
        counts = store.dataset("high-contrast").counts()
    assert (counts.accepted, counts.rejected) == (403, 7)
    assert "Nothing new" in sdlora("run", "--config", str(config), "--home", str(home))
