"""A training of two processes, ended in every way: nobody goes on alone, the next start ends with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sdlora.core.checkpoints import latest_checkpoint
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import make_snapshot
from sdlora.store.image_store import ImageStore
from sdlora.training.job import TrainingJob
from sdlora.training.launch import opened_job, run_job, write_job
from tests.tiny import draw_images
from tests.unit.training.setting import CONFIG, LORA
from tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.slow
# Steps enough to be ended in the middle, checkpoints only when somebody asks to end.
SETTINGS = {"precision": "fp32", "batch_size": 4, "steps": 60, "validation_every_steps": 10, "num_processes": 2}
TRAINING = CONFIG.model_copy(update={**SETTINGS, "checkpoint_every_steps": None})


@pytest.fixture(scope="module")
def written(base, tmp_path_factory):
    """From a folder to the file of the job to train there."""
    home = tmp_path_factory.mktemp("processes")
    config = DataConfig(sources=(str(draw_images(home / "images", 16)),))
    with ImageStore.open(home / "home") as store:
        dataset = store.dataset("icons")
        collect(dataset, config.sources[0], config)
        clean(dataset, config)
        snapshot = make_snapshot(dataset, config)
    return lambda folder: write_job(TrainingJob(base, snapshot, LORA, TRAINING, folder), home / "home")


def finish(file: Path) -> dict[str, bytes]:
    with opened_job(file) as (job, store):
        adapter = run_job(job, store)
    return {path.name: path.read_bytes() for path in adapter.folder.iterdir()}


@pytest.fixture(scope="module")
def uninterrupted(written, tmp_path_factory):
    return finish(written(tmp_path_factory.mktemp("whole") / "run"))


def start(file: Path) -> subprocess.Popen[str]:
    """Start a parent and return when its processes have trained a few steps."""
    command = [sys.executable, "-m", "tests.unit.training.parent", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout is not None
    while int(started.stdout.readline()) < 4:
        pass
    return started


def family_of(started: subprocess.Popen[str]) -> list[psutil.Process]:
    """The launcher, then the workers."""
    family = psutil.Process(started.pid).children(recursive=True)
    assert len(family) == 3
    return family


def wait_for(family: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(family, PATIENCE_SECONDS)
    for process in alive:
        process.kill()
    assert not alive


@pytest.mark.parametrize("receivers", ["parent", "all", "one worker"])
def test_sigterm_ends_all_of_them_after_a_checkpoint(receivers, written, uninterrupted, tmp_path):
    file = written(tmp_path / "run")
    started = start(file)
    family = family_of(started)
    told = {"parent": [started.pid], "one worker": [family[2].pid]}
    for pid in told.get(receivers, [started.pid, *(process.pid for process in family)]):
        os.kill(pid, signal.SIGTERM)
    _, errors = started.communicate(timeout=PATIENCE_SECONDS)
    wait_for(family)
    assert started.returncode == 130, errors
    assert "Traceback" not in errors
    checkpoint = latest_checkpoint(file.parent / "checkpoints")
    assert checkpoint is not None and 4 <= checkpoint.step < 60
    assert finish(file) == uninterrupted


@pytest.mark.parametrize("killed", ["parent", "launcher", "one worker"])
def test_a_killed_one_ends_all_of_them_and_the_next_start_works(killed, written, uninterrupted, tmp_path):
    file = written(tmp_path / "run")
    started = start(file)
    family = family_of(started)
    victim = {"parent": started.pid, "launcher": family[0].pid, "one worker": family[1].pid}
    os.kill(victim[killed], signal.SIGKILL)
    if killed == "parent":  # at once: what is still about to end must not be in the way
        assert finish(file) == uninterrupted
    _, errors = started.communicate(timeout=PATIENCE_SECONDS)
    wait_for(family)
    assert "Traceback" not in errors
    if killed != "parent":
        assert started.returncode == 1
        assert "was killed" in errors and "the same command continues" in errors
        assert finish(file) == uninterrupted
