"""What sdlora makes is its owner's, and what only reads works in a state folder that cannot be written."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sdlora.core.errors import StorageError
from sdlora.core.files import make_private_folder, require_writable
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import make_snapshot
from sdlora.records.champions import ScoredVersion
from sdlora.store.champions import champion_history, record_manual_change
from sdlora.store.image_store import ImageStore
from tests.tiny import draw_images

PROJECT = Path(__file__).parents[3]
CONFIG = DataConfig(min_train_images=1, min_held_out_images=1)


@pytest.fixture
def generous() -> Iterator[None]:
    previous = os.umask(0)
    yield
    assert os.umask(previous) == 0  # a library leaves its caller's umask as it is


@pytest.mark.usefixtures("generous")
def test_the_library_makes_folders_that_others_cannot_enter(tmp_path):
    with ImageStore.open(tmp_path / "parent" / "home") as store:
        collect(store.dataset("icons"), str(draw_images(tmp_path / "pictures", 2)), CONFIG)
    for folder in (tmp_path / "parent", tmp_path / "parent" / "home"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (tmp_path / "mine").mkdir(mode=0o750)
    assert stat.S_IMODE(make_private_folder(tmp_path / "mine").stat().st_mode) == 0o750


def test_a_command_makes_files_that_others_cannot_write_even_in_an_open_folder(tmp_path):
    pictures, home = draw_images(tmp_path / "pictures", 4), tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    command = [sys.executable, "-m", "deployments.cli", "collect", str(pictures), "--home", str(home)]
    done = subprocess.run(command, cwd=PROJECT, umask=0, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = list(home.rglob("*"))
    assert {"images.db", "blobs"} <= {path.name for path in written}
    assert [path for path in written if path.stat().st_mode & 0o022] == []


def test_a_place_that_cannot_be_written_is_named_with_its_option(tmp_path):
    require_writable(tmp_path / "new" / "folder", "--out")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file cannot be written\..* with --out"):
        require_writable(tmp_path / "file" / "folder", "--out")


SCRIPT = """
import json, sys
from typer.testing import CliRunner
from deployments.cli.app import app

def outcome(*arguments):
    result = CliRunner().invoke(app, ["--home", HOME, *arguments], env={"COLUMNS": "200"})
    return [result.exit_code, result.output]

HOME, OUT, CONFIG, FIRST = sys.argv[1:5]
print(json.dumps({"images": outcome("images")} if "images" in sys.argv[5:] else {
    "images": outcome("images"),
    "page": outcome("images", "page", "--config", CONFIG),
    "page out": outcome("images", "page", "--config", CONFIG, "--out", OUT + "/page.html"),
    "snapshot list": outcome("snapshot", "list"),
    "versions": outcome("versions"),
    "doctor": outcome("doctor"),
    "generate": outcome("generate", "a red car", "--out", OUT),
    "base": outcome("generate", "a red car", "--base", "--out", OUT),
    "reject": outcome("images", "reject", FIRST, "--why", "x"),
}))
"""


# Root may write anywhere. It loses that right for good with the capabilities DAC_OVERRIDE, DAC_READ_SEARCH and FOWNER.
WITHOUT_RIGHTS = """
import ctypes, os, sys
for capability in (1, 2, 3):
    if ctypes.CDLL(None, use_errno=True).prctl(24, capability, 0, 0, 0):
        sys.exit("PR_CAPBSET_DROP is refused")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def as_somebody_without_rights(home: Path, out: Path, config: Path, first: str, *only: str) -> dict[str, list]:
    """Run the commands on a home without write permission; `first` is the SHA-256 of an image."""
    out.mkdir()
    for path in (home, *home.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [sys.executable, "-c", SCRIPT, str(home), str(out), str(config), first, *only]
    if os.getuid() == 0:
        for path in (home, *home.rglob("*")):
            os.chown(path, 65534, 65534)
        command[1:1] = ["-c", WITHOUT_RIGHTS]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    if "PR_CAPBSET_DROP" in done.stderr:
        pytest.skip("root keeps its rights here")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def filled(home: Path) -> str:
    """Fill a home; returns the SHA-256 of an image."""
    with ImageStore.open(home) as store:
        collect(store.dataset("icons"), str(draw_images(home.parent / "pictures", 12)), CONFIG)
        clean(store.dataset("icons"), CONFIG)
        snapshot = make_snapshot(store.dataset("icons"), CONFIG)
        version = ScoredVersion(1, "a" * 64, snapshot.digest, "b" * 64, 8, "kid", 0.1, 0.2)
        with store.write() as session:
            before = champion_history(session, "icons")
            record_manual_change(session, before, "moved by hand", version, "ana", "a trial")
        return store.dataset("icons").images()[0].sha256


def test_in_a_state_folder_that_cannot_be_written_reading_works_and_drawing_is_refused_first(tmp_path):
    home, out, config = tmp_path / "home", tmp_path / "out", tmp_path / "style.yaml"
    config.write_text(yaml.safe_dump({"data": {"min_train_images": 1, "min_held_out_images": 1}}))
    said = as_somebody_without_rights(home, out, config, filled(home))
    for name, expected in (
        ("images", "a red circle"),
        ("page out", "Open it in a browser"),
        ("snapshot list", "held out"),
        ("versions", "icons"),
    ):
        assert said[name][0] == 0 and expected in said[name][1], (name, said[name])
    assert "Written by sdlora" in (out / "page.html").read_text()
    assert said["page"][0] == 1
    assert str(home) in said["page"][1]
    assert "with --out" in said["page"][1]
    for name in ("generate", "base"):
        assert said[name][0] == 1
        assert (
            f"Error: {home} cannot be written. Change its rights, or choose another folder with --home" in said[name][1]
        )
    assert f"{home} is not writable" in said["doctor"][1]
    assert "12 images, datasets: icons" in said["doctor"][1], said["doctor"]
    assert "readonly database" in said["reject"][1] or "cannot be written" in said["reject"][1], said["reject"]
    assert not [name for name, (_, output) in said.items() if "not an error of yours" in output], said


def test_a_database_that_another_process_has_open_is_read_with_its_log(tmp_path):
    home, out, config = tmp_path / "home", tmp_path / "out", tmp_path / "style.yaml"
    config.write_text("")
    first = filled(home)
    with ImageStore.open(home) as store:  # the log stays as long as it is open
        store.dataset("icons").add_image(b"the newest image", ("in the log only",))
        assert (home / "images.db-wal").stat().st_size
        said = as_somebody_without_rights(home, out, config, first, "images")
    assert "in the log only" in said["images"][1], said["images"]
