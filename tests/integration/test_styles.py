"""Three styles of one state folder, as a user runs them: all, then nothing new, then those that a takedown affects."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from sdlora.store.image_store import ImageStore
from tests.settings import make_style
from tests.tiny import draw_images


def sdlora(home: Path, *arguments: str) -> str:
    # Not this process's Prefect: the command starts a server of its own, as it does for a user.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-m", "deployments.cli", "--home", str(home), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def releases(home: Path, *arguments: str) -> dict[str, tuple[int, bool]]:
    """Run several styles; return the version of each and whether it is new."""
    rows = json.loads(sdlora(home, "run", *arguments, "--json"))["styles"]
    return {row["style"]: (row["release"]["version"], row["release"]["is_new"]) for row in rows}


def server_log_time(home: Path) -> int:
    return (home / "logs" / "prefect-server.log").stat().st_mtime_ns


def test_styles_learn_from_their_own_images_and_a_takedown_trains_those_that_had_the_image(settings, tmp_path):
    home = tmp_path / "home"
    sections = {name: value for name, value in settings.items() if name != "name"}
    sections["data"] = {**sections["data"], "min_train_images": 2, "min_held_out_images": 2}
    sections["evaluation"] = {**sections["evaluation"], "max_prompts": 2, "shown_prompts": 1}
    folders = {name: draw_images(tmp_path / name, 12, seed=number) for number, name in enumerate(("comics", "props"))}
    folders["posters"] = draw_images(tmp_path / "posters", 8, seed=2)
    for image in sorted(folders["comics"].glob("*.png"))[:6]:
        shutil.copy(image, folders["posters"])
    for name, folder in folders.items():
        make_style(home, name, folder, **{**sections, "data": {**sections["data"], "sources": [str(folder)]}})
    assert releases(home, "--all") == {"comics": (1, True), "posters": (1, True), "props": (1, True)}
    with ImageStore.open(home) as store:
        images = {name: {row.sha256 for row in store.dataset(name).images()} for name in folders}
        learnt = {sha256: store.lineage(sha256).trained_styles for sha256 in images["comics"] & images["posters"]}
    assert {name: len(shown) for name, shown in images.items()} == {"comics": 12, "posters": 14, "props": 12}
    assert not images["props"] & (images["comics"] | images["posters"])

    servers = server_log_time(home)
    assert releases(home, "--all") == {"comics": (1, False), "posters": (1, False), "props": (1, False)}
    assert server_log_time(home) == servers  # none was started

    image = next(sha256 for sha256, styles in learnt.items() if len(styles) == 2)
    told = sdlora(home, "images", "purge", image, "--why", "a takedown", "--yes")
    command = f"sdlora run --affected-by {image[:10]}"
    assert "Styles to train again: comics, posters" in told and command in told
    assert releases(home, *command.split()[2:]) == {"comics": (2, True), "posters": (2, True)}
    with ImageStore.open(home) as store:
        newest = {name: store.dataset(name).snapshots(1)[0].digest for name in ("comics", "posters")}
        held_by = {appearance.snapshot.digest for appearance in store.lineage(image).appearances}
    assert held_by.isdisjoint(newest.values())

    servers = server_log_time(home)
    assert releases(home, *command.split()[2:]) == {"comics": (2, False), "posters": (2, False)}
    assert server_log_time(home) == servers
