"""Collectors that are killed, run at once, or whose store is moved: the images are those of one clean run."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.store.tables.datasets import CaptionTable, FileTable, MemberTable, SourceTable
from sdlora.store.tables.images import ImageTable
from tests.stores import opened_dataset
from tests.unit.data.drawing import drawing, encoded
from tests.unit.data.test_archives import write_zip
from tests.waiting import PATIENCE_SECONDS

CONFIG = DataConfig()
FILES = 400

Contents = tuple[set[tuple[object, ...]], set[tuple[object, ...]]]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A folder with sidecars, and an archive that has half of the same images."""
    root = tmp_path_factory.mktemp("sources")
    members: dict[str, bytes] = {}
    (root / "folder").mkdir()
    base = encoded(drawing(0, side_px=16))
    for number in range(FILES):
        # What follows the end of a PNG is not looked at: other bytes, at no cost.
        content = base + number.to_bytes(4, "big")
        (root / "folder" / f"{number:04d}.png").write_bytes(content)
        (root / "folder" / f"{number:04d}.txt").write_text(f"number {number}")
        if number % 2:
            members |= {f"{number:04d}.png": content, f"{number:04d}.txt": f"odd {number}".encode()}
    return str(root / "folder"), str(write_zip(root / "odd.zip", members))


def _collect(home: Path, uris: tuple[str, ...]) -> None:
    with opened_dataset(home) as dataset:
        for uri in uris:
            collect(dataset, uri, CONFIG)


def _contents(home: Path) -> Contents:
    """All that was collected, without ids and times; every image's bytes are read and compared with their digest."""
    with opened_dataset(home) as dataset, dataset.store.read() as session:
        files = (
            select(SourceTable.name, FileTable.path, ImageTable.sha256, FileTable.byte_size, FileTable.stamp)
            .join(SourceTable, SourceTable.id == FileTable.source_id)
            .join(MemberTable, MemberTable.id == FileTable.member_id)
            .join(ImageTable, ImageTable.id == MemberTable.image_id)
        )
        captions = (
            select(SourceTable.name, FileTable.path, ImageTable.sha256, CaptionTable.position, CaptionTable.text)
            .join(SourceTable, SourceTable.id == CaptionTable.source_id)
            .join(FileTable, FileTable.id == CaptionTable.file_id)
            .join(MemberTable, MemberTable.id == CaptionTable.member_id)
            .join(ImageTable, ImageTable.id == MemberTable.image_id)
        )
        shas = session.scalars(select(ImageTable.sha256)).all()
        assert len(shas) == len(set(shas))
        assert all(dataset.store.blobs.get(sha256) for sha256 in shas)
        told = {tuple(row) for row in session.execute(captions)}
        seen = {tuple(row) for row in session.execute(files)}
    assert len(told) == len(seen) == FILES + FILES // 2
    return seen, told


@pytest.fixture(scope="module")
def clean_run(sources: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Contents, float]:
    home = tmp_path_factory.mktemp("clean") / "home"
    began = time.monotonic()
    _collect(home, sources)
    return _contents(home), time.monotonic() - began


@pytest.mark.parametrize("moments", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_changes_nothing_of_the_result(
    tmp_path: Path, sources: tuple[str, str], clean_run: tuple[Contents, float], moments: int
) -> None:
    expected, seconds = clean_run
    dice = random.Random(moments)
    killed, home = 0, tmp_path / "home"
    for _ in range(20 * moments):
        # Forked, so that the kill falls into the work and not into imports.
        process = multiprocessing.get_context("fork").Process(target=_collect, args=(home, sources))
        process.start()
        time.sleep(seconds * dice.random())
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:  # it came to its end before: the machine is quicker than at the measurement
            seconds /= 2
        _collect(home, sources)
        assert _contents(home) == expected
        shutil.rmtree(home)
        if killed == moments:
            return
    pytest.fail(f"only {killed} collections were killed on their way")


def test_two_collectors_of_the_same_sources_make_what_one_makes(
    tmp_path: Path, sources: tuple[str, str], clean_run: tuple[Contents, float]
) -> None:
    spawn = multiprocessing.get_context("spawn")
    uris = (sources, tuple(reversed(sources)))
    workers = [spawn.Process(target=_collect, args=(tmp_path / "home", mine)) for mine in uris]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert _contents(tmp_path / "home") == clean_run[0]


def test_a_store_that_was_moved_still_knows_its_sources(tmp_path: Path, sources: tuple[str, str]) -> None:
    _collect(tmp_path / "here", sources)
    (tmp_path / "there").mkdir()
    shutil.move(tmp_path / "here", tmp_path / "there" / "home")
    with opened_dataset(tmp_path / "there" / "home") as dataset:
        for uri in sources:
            report = collect(dataset, uri, CONFIG)
            assert (report.new, report.bytes_read, report.skipped_count) == (0, 0, 0)
        assert str(tmp_path).encode() not in (dataset.store.home / "images.db").read_bytes()


def test_what_a_killed_writer_left_is_swept_away(tmp_path: Path, sources: tuple[str, str]) -> None:
    _collect(tmp_path / "home", sources[1:])
    left = tmp_path / "home" / "blobs" / ".partial" / "left"
    fresh = left.with_name("fresh")
    for path in (left, fresh):
        path.write_bytes(b"half an im")
    os.utime(left, (1, 1))
    _collect(tmp_path / "home", sources[1:])
    assert (left.exists(), fresh.exists()) == (False, True)  # a fresh one may belong to a collector at work


def test_a_second_pass_of_the_command_loads_no_model_library(tmp_path: Path, sources: tuple[str, str]) -> None:
    command = [sys.executable, "-m", "deployments.cli", "--home", str(tmp_path / "home"), "collect", sources[0]]
    subprocess.run(command, check=True, capture_output=True)
    seen = subprocess.run(
        [sys.executable, "-X", "importtime", *command[1:]], capture_output=True, text=True, check=True
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in seen.stderr.splitlines()}
    assert f"{FILES} images, 0 new" in seen.stdout
    assert not loaded & {
        "torch",
        "transformers",
        "diffusers",
        "prefect",
        "mlflow",
        "datasets",
        "pyarrow",
        "scipy",
    }


def test_ctrl_c_keeps_what_was_done_and_says_so(tmp_path: Path, sources: tuple[str, str]) -> None:
    for attempt in range(20):  # on busy cores a small collection may have ended before the signal comes
        home = tmp_path / f"home-{attempt}"
        command = [sys.executable, "-m", "deployments.cli", "--home", str(home), "collect", sources[0]]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not (home / "blobs").is_dir() and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
        if process.returncode != 0:
            break
    assert process.returncode == 130
    assert "Stopped. Finished work is kept" in said
    assert "Traceback" not in said
    subprocess.run(command, check=True, capture_output=True)
    with opened_dataset(home) as dataset:
        assert dataset.store.image_count() == FILES
