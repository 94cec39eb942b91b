"""`sdlora versions` reads the image database alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli.app import app
from sdlora.records.champions import ScoredVersion
from sdlora.records.decision import Decision
from sdlora.store.champions import record_decision
from sdlora.store.image_store import ImageStore


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two styles: icons, whose second version was refused, and props with a first one of unknown scores."""
    home = tmp_path / "home"
    with ImageStore.open(home) as store, store.write() as session:
        for style, number, champion, promote in (("icons", 1, None, True), ("icons", 2, 1, False)):
            version = ScoredVersion(number, f"{number}" * 64, "5" * 64, "6" * 64, 40 + number, "kid", 0.4 / number, 0.9)
            record_decision(session, style, version, decided(version, promote=promote), champion)
        unknown = ScoredVersion(1, "7" * 64)
        record_decision(session, "props", unknown, decided(unknown, promote=False), None)
    return home


def decided(version: ScoredVersion, *, promote: bool) -> Decision:
    return Decision(
        promote=promote,
        reasons=("as the gate says",),
        checks=(),
        duel_digest="d" * 64,
        candidate_digest=version.adapter_digest,
        champion_digest=None,
    )


def shown(*arguments: str) -> list[str]:
    """The rows without the days at their ends, on a terminal of 80 columns."""
    done = CliRunner().invoke(app, ["versions", *arguments], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return [" ".join(line.split()[:-1]) for line in done.output.splitlines()[1:]]


def test_each_version_is_listed_with_score_and_decision_and_the_champion_is_marked(home: Path) -> None:
    icons = [
        "icons 2 KID 0.2000 0.9000 42 refused",
        "icons 1 champion KID 0.4000 0.9000 41 first champion",
    ]
    assert shown("--home", str(home)) == [*icons, "props 1 ? ? unknown refused"]
    assert shown("icons", "--home", str(home)) == icons


def test_a_style_without_versions_is_said_with_those_that_have_some(home: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["versions", "icon", "--home", str(home)])
    assert done.exit_code == 1
    assert "No versions of 'icon'" in done.output
    assert "Styles that have some: icons, props." in done.output
    ImageStore.open(tmp_path / "empty").close()
    done = CliRunner().invoke(app, ["versions", "--home", str(tmp_path / "empty")])
    assert done.exit_code == 0
    assert "No versions yet" in done.output


def test_it_loads_neither_mlflow_nor_prefect_nor_pytorch(home: Path) -> None:
    code = f"""
import atexit, sys
from deployments.cli import main
atexit.register(lambda: print(sorted({{"mlflow", "prefect", "torch"}} & sys.modules.keys())))
sys.argv = ["sdlora", "versions", "--home", {str(home)!r}]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "icons" in done.stdout
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr
