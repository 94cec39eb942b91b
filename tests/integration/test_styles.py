"""Two styles of one state folder, as a user runs them: one pass over both, then nothing new for either."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from sdlora.store.image_store import ImageStore
from tests.settings import make_style
from tests.tiny import draw_images


def run_all(home: Path) -> dict[str, Any]:
    # Not this process's Prefect: the command starts a server of its own, as it does for a user.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-m", "deployments.cli", "--home", str(home), "run", "--all", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return {row["style"]: row["release"] for row in json.loads(done.stdout)["styles"]}


def test_all_styles_learn_from_their_own_images_and_without_news_nothing_starts(settings, tmp_path):
    home = tmp_path / "home"
    sections = {name: value for name, value in settings.items() if name != "name"}
    for number, name in enumerate(("comics", "props")):
        folder = draw_images(tmp_path / name, 12, seed=number)
        make_style(home, name, folder, **{**sections, "data": {**sections["data"], "sources": [str(folder)]}})
    first = run_all(home)
    assert {name: (release["version"], release["is_new"]) for name, release in first.items()} == {
        "comics": (1, True),
        "props": (1, True),
    }
    with ImageStore.open(home) as store:
        images = {name: {row.sha256 for row in store.dataset(name).images()} for name in first}
    assert len(images["comics"]) == len(images["props"]) == 12
    assert not images["comics"] & images["props"]

    servers = (home / "logs" / "prefect-server.log").stat().st_mtime_ns
    assert [release["is_new"] for release in run_all(home).values()] == [False, False]
    assert (home / "logs" / "prefect-server.log").stat().st_mtime_ns == servers  # none was started
