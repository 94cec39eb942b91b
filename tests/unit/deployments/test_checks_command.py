from __future__ import annotations

from typer.testing import CliRunner

from deployments.cli.app import app
from sdlora.data.checks import CHECKS
from sdlora.data.clean import clean
from sdlora.data.config import DataConfig
from tests.stores import opened_dataset
from tests.unit.data.drawing import drawing, encoded


def test_the_checks_are_listed_with_versions_settings_and_what_they_rejected(tmp_path):
    with opened_dataset(tmp_path / "home") as dataset:
        for seed in range(3):
            dataset.add_image(encoded(drawing(seed, side_px=20)))
        clean(dataset, DataConfig())
    config = tmp_path / "own.yaml"
    config.write_text("name: own\ndata: {min_side_px: 21}\n")
    shown = CliRunner().invoke(app, ["checks", "--home", str(tmp_path / "home"), "--config", str(config)])
    assert shown.exit_code == 0, shown.output
    rows = {line.split()[0]: line.split() for line in shown.output.splitlines() if line.strip()}
    assert {check.name for check in CHECKS} <= rows.keys()
    assert {"exact_duplicate", "near_duplicate", "split_leak"} <= rows.keys()
    too_small = rows["too_small"]
    assert too_small[1] == "1"
    assert "min_side_px = 21" in " ".join(too_small)
    assert "Shorter side in pixels." in " ".join(too_small)
    assert too_small[-1] == "3"
    assert rows["dark"][-1] == "0"


def test_the_checks_are_listed_without_a_store(tmp_path):
    shown = CliRunner().invoke(app, ["checks", "--home", str(tmp_path / "none")])
    assert shown.exit_code == 0, shown.output
    assert "rejected" not in shown.output.splitlines()[0]
    assert not (tmp_path / "none").exists()
