"""The newcomer's way: `sdlora new` on a folder of twenty images, and `sdlora run` with no setting touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sdlora.assets import DEMO_FOLDER
from sdlora.config import load_config
from sdlora.evaluation.gate import MIN_HELD_OUT_IMAGES
from sdlora.records.choice import load_choice
from sdlora.records.duel import load_duel
from tests.integration.test_demo import sdlora


@pytest.mark.slow
def test_twenty_images_end_in_an_answer_with_the_next_command_and_are_not_learnt_by_heart(tmp_path: Path) -> None:
    images, home = tmp_path / "my-images", tmp_path / "home"
    images.mkdir()
    for file in sorted((DEMO_FOLDER / "later").glob("*.png"))[:20]:
        shutil.copy(file, images)
    sdlora("new", "my-style", "--images", str(images), "--home", str(home))
    output = " ".join(sdlora("run", "my-style", "--home", str(home)).split())

    (folder,) = (home / "runs" / "my-style").iterdir()
    duel, choice = load_duel(folder / "evaluation"), load_choice(folder)
    assert len(duel.samples) >= MIN_HELD_OUT_IMAGES
    assert choice is not None
    assert choice.trained_steps == load_config(home / "styles" / "my-style.yaml").training.steps
    assert duel.scores["candidate"].metrics["kid"].value < duel.scores["base"].metrics["kid"].value
    assert duel.against_base["denoising_psnr"].high >= -0.5  # 3 dB are lost by an adapter that learnt them by heart
    if "passed the gate" in output:
        assert "The gate's answer: better" in output
    else:
        assert "The gate's answer: cannot tell" in output
        assert "What helps: " in output and "sdlora promote my-style --version 1" in output
