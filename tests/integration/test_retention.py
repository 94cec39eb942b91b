"""`sdlora gc` on a state folder of real runs: what goes, what stays, and what a kill leaves."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli.app import app
from deployments.doctor import diagnose_deeply, disk_finding
from flows.retrain import retrain
from sdlora.config import PipelineConfig
from sdlora.core.checkpoints import save_checkpoint
from sdlora.core.errors import StorageError
from sdlora.core.progress import SILENT
from sdlora.retention.space import MARGIN_BYTES, disk_space
from sdlora.store.champions import champion_history
from sdlora.store.image_store import ImageStore
from tasks.retention import collect_garbage
from tasks.tracking import Registry, RemovedFilesError
from tests.settings import run_flow

VERSIONS = (1, 2, 3)


def seeded(config: PipelineConfig, seed: int) -> PipelineConfig:
    """The style with another adapter, which no gate promotes."""
    changes = {
        "name": "growth",
        "training": config.training.model_copy(update={"seed": seed}),
        "gate": config.gate.model_copy(update={"min_improvement": 1e6}),
    }
    return config.model_copy(update=changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, config: PipelineConfig) -> Path:
    """Three refused versions; a person rated an image of the second."""
    home = tmp_path_factory.mktemp("growth") / "home"
    for number in VERSIONS:
        assert run_flow(retrain, seeded(config, number), home).version == number
    with ImageStore.open(home) as store:
        for number in VERSIONS:
            sha256 = store.add_generation(
                f"drawing of {number}".encode(),
                model_version=f"growth version {number}",
                prompt="a ring",
                seed=number,
                steps=2,
                guidance_scale=1.0,
            )
            if number == 2:
                store.rate(sha256, 5)
    (home / "retention.yaml").write_text("lost_candidates: 1\ndrawn_images: 1\n")
    return home


@pytest.fixture
def home(finished: Path, tmp_path: Path) -> Path:
    """A copy, as `cp -r` makes it: without hard links."""
    return shutil.copytree(finished, tmp_path / "home")


def weights(home: Path) -> set[str]:
    """Folders with weights, below the state folder."""
    return {str(path.parent.relative_to(home)) for path in home.rglob("pytorch_lora_weights.safetensors")}


def adapter_folder(home: Path, number: int) -> Path:
    version = Registry(home).get("growth", number)
    assert version is not None
    return home / "runs" / "growth" / version.tags["run_digest"][:16] / "adapter"


def gc(home: Path, *options: str) -> dict[str, object]:
    done = CliRunner().invoke(app, ["gc", "--home", str(home), "--json", *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def bytes_on_disk(home: Path) -> int:
    files = {
        (status.st_dev, status.st_ino): status.st_size
        for path in home.rglob("*")
        if path.is_file() and path.name != "training.lock" and ".db" not in path.name
        for status in [path.stat()]
    }
    return sum(files.values())


def test_doctor_compares_the_free_space_with_the_measured_rounds(
    home: Path, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = disk_space(home, "growth")
    weights = sum(path.stat().st_size for path in adapter_folder(home, 3).glob("*.safetensors"))
    assert space.needed is not None
    assert space.needed - MARGIN_BYTES > 5 * weights  # checkpoints with the optimiser's state, and the adapters
    assert disk_space(home, "other").needed is None

    def with_free(size: int) -> None:
        usage = shutil.disk_usage(home)._replace(free=size)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    levels = []
    for free in (space.needed - 1, space.needed + space.kept, 10**13):
        with_free(free)
        levels.append(disk_finding(home).level)
    assert levels == ["problem", "note", "good"]
    with_free(space.needed - 1)
    assert "sdlora gc --dry-run" in disk_finding(home).text
    with pytest.raises(StorageError, match=r"Nothing was trained\. Free some space: `sdlora gc --dry-run`"):
        run_flow(retrain, seeded(config, 9), home)
    assert len(list((home / "runs" / "growth").glob("*/adapter"))) == len(VERSIONS)
    assert run_flow(retrain, seeded(config, 3), home).new is False  # what needs no space goes on


def test_a_release_takes_no_space_of_its_own(finished: Path) -> None:
    for number in VERSIONS:
        adapter = adapter_folder(finished, number)
        for file in adapter.glob("*.safetensors"):
            assert file.samefile(adapter.with_name("release") / file.name)


def test_what_is_lost_goes_and_what_a_person_touched_stays(home: Path) -> None:
    before, files = weights(home), bytes_on_disk(home)
    listed = gc(home, "--dry-run")
    assert (weights(home), bytes_on_disk(home)) == (before, files)
    removed = gc(home)
    assert removed["removals"] == listed["removals"]
    assert [each["what"] for each in removed["removals"] if each["kind"] == "lost candidate"] == ["growth version 1"]
    kept = {number for number in VERSIONS if (adapter_folder(home, number) / "adapter.json").is_file()}
    assert kept == {2, 3}
    assert {path for path in before - weights(home) if path.startswith("mlflow")} != set()
    assert files - bytes_on_disk(home) == removed["byte_size"]
    for number in kept:
        adapter = adapter_folder(home, number)
        assert all(file.samefile(adapter.with_name("release") / file.name) for file in adapter.glob("*.safetensors"))
    with ImageStore.open(home) as store, store.read() as session:
        assert store.generation_count() == 2  # the rated one and the newest
        assert [entry.version.number for entry in champion_history(session, "growth").entries] == list(VERSIONS)
    assert diagnose_deeply(home, SILENT.on_progress, repair=False) == []
    again = gc(home)
    assert (again["removals"], again["unfinished_runs"]) == ([], [])
    checkpoint = save_checkpoint(home / "runs" / "growth" / f"{7:016x}" / "checkpoints", 4, {}, {})
    (run,) = gc(home)["unfinished_runs"]
    assert run["path"] == str(checkpoint.parents[1])
    assert checkpoint.is_dir()


def test_a_version_without_files_says_so_and_is_not_trained_again(home: Path, config: PipelineConfig) -> None:
    gc(home)
    listed = CliRunner().invoke(app, ["versions", "--home", str(home), "--json"])
    removed_at = {each["number"]: each["files_removed_at"] for each in json.loads(listed.stdout)["versions"]}
    assert {number for number, moment in removed_at.items() if moment} == {1}
    text = CliRunner().invoke(app, ["versions", "--home", str(home)], env={"COLUMNS": "200"}).stdout
    assert text.count("files removed by retention on ") == 1
    registry = Registry(home)
    first = registry.get("growth", 1)
    assert first is not None
    with pytest.raises(RemovedFilesError, match=r"growth version 1: files removed by retention on \d{4}-"):
        registry.fetch(first, home)
    export = CliRunner().invoke(app, ["export", str(home / "x"), "--version", "1", "--home", str(home)])
    assert (export.exit_code, "files removed by retention on" in export.output.replace("\n", " ")) == (1, True)
    release = run_flow(retrain, seeded(config, 1), home)
    assert (release.version, release.new) == (1, False)
    assert not adapter_folder(home, 1).exists()
    assert diagnose_deeply(home, SILENT.on_progress, repair=False) == []


def test_forced_the_same_adapter_is_trained_again_and_its_version_has_its_files_back(
    home: Path, config: PipelineConfig
) -> None:
    gc(home)
    release = run_flow(retrain, seeded(config, 1), home, force=True)
    assert (release.version, release.new) == (1, True)
    registry = Registry(home)
    first = registry.get("growth", 1)
    assert first is not None
    assert not first.files_removed
    shutil.rmtree(adapter_folder(home, 1).parent)
    assert registry.fetch(first, home).digest == first.tags["adapter_digest"]  # from MLflow
    assert diagnose_deeply(home, SILENT.on_progress, repair=False) == []


class Killed(BaseException):
    """A kill: no handler of errors sees it."""


@pytest.mark.parametrize("deletions", [0, 3, 8])
def test_a_kill_at_any_deletion_leaves_a_whole_home_and_the_next_call_finishes(
    deletions: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = 0

    def dying(function):
        def call(*arguments, **options):
            nonlocal done
            done += 1
            if done > deletions:
                raise Killed
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for owner, name in ((Path, "rename"), (os, "unlink"), (os, "remove"), (shutil, "rmtree"), (Path, "unlink")):
            patch.setattr(owner, name, dying(getattr(owner, name)))
        with pytest.raises(Killed):
            collect_garbage(home)
    assert diagnose_deeply(home, SILENT.on_progress, repair=False) == []
    collect_garbage(home)
    assert gc(home)["removals"] == []
    assert not list((home / "trash").iterdir())
    assert diagnose_deeply(home, SILENT.on_progress, repair=False) == []
    assert {number for number in VERSIONS if adapter_folder(home, number).exists()} == {2, 3}
