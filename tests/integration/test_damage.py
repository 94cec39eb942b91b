"""The damage table: what is damaged, what `doctor` and `doctor --deep` say, and what `--repair` does."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import select, update
from typer.testing import CliRunner

from deployments.cli.app import app
from deployments.doctor import diagnose_deeply
from flows.retrain import retrain
from sdlora.core.checkpoints import save_checkpoint
from sdlora.core.errors import TrainingError
from sdlora.core.files import file_sha256, replace_file
from sdlora.core.progress import SILENT
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import load_snapshot
from sdlora.integrity.runs import picture_copies
from sdlora.integrity.verify import verify
from sdlora.models.files.digests import record_digests
from sdlora.records.duel import load_duel
from sdlora.store.image_store import ImageStore
from sdlora.store.tables.datasets import MaskTable
from sdlora.store.tables.versions import SnapshotImageTable
from tasks.lock import run_lock
from tasks.tracking import NoWholeCopyError, Registry, registered_copies
from tests.power_cut import files_in, recorded_flushes
from tests.settings import run_flow
from tests.tiny import draw_images, tiny_base_model


class Home:
    """A state folder with one of everything that has a digest."""

    def __init__(self, folder: Path, config, base_folder: Path) -> None:
        self.folder = folder
        source = draw_images(folder.parent / "pictures", 24)
        first = sorted(source.glob("*.png"))[0]
        Image.new("L", (64, 64), 200).save(source / f"{first.stem}.mask.png")
        config = config.model_copy(
            update={
                "name": "table",
                "data": config.data.model_copy(update={"sources": (str(source),)}),
                "base_model": config.base_model.model_copy(update={"source": str(base_folder)}),
            }
        )
        self.config = config
        with recorded_flushes() as disk:
            self.release = run_flow(retrain, config, folder)
        self.disk = disk
        self.run = self.release.run.folder
        self.config_base = base_folder
        self.base = folder / "bases" / "small-0123" / "model"
        tiny_base_model(self.base, seed=5)
        record_digests(self.base)
        self.kept = self.run / "kept" / "step-00000002.safetensors"
        replace_file(self.kept, b"weights")
        kept = {"step": 2, "sha256": file_sha256(self.kept)}
        self.checkpoint = save_checkpoint(self.run / "checkpoints", 4, {}, {"validation": [kept]})
        with ImageStore.open(folder) as store:
            picture = io.BytesIO()
            Image.new("RGB", (8, 8), "red").save(picture, "PNG")
            self.drawn = store.add_generation(
                picture.getvalue(), model_version="table version 1", prompt="a car", seed=7, steps=2, guidance_scale=1.0
            )
            self.image = store.existing_dataset("table").images()[0].sha256
            self.snapshot = store.snapshots()[0].digest
            with store.read() as session:
                self.mask = session.scalars(select(MaskTable.sha256)).one()
        version = Registry(folder).versions("table")[0]
        Registry(folder)._download(version, folder / "cache" / "adapters" / version.tags["adapter_digest"])
        with registered_copies(folder) as self.registered:
            pass

    def blob(self, sha256):
        return self.folder / "blobs" / sha256[:2] / sha256

    def files(self, pattern):
        found = sorted(path for path in self.folder.glob(pattern) if path.is_file())
        assert found, pattern
        return found

    def verify(self, repair=False):
        with ImageStore.open(self.folder) as store:
            return verify(self.folder, store, self.registered, SILENT.on_progress, repair=repair)


@pytest.fixture(scope="module")
def home(tmp_path_factory, config, base_folder):
    return Home(
        tmp_path_factory.mktemp("damage") / "home",
        config,
        shutil.copytree(base_folder, tmp_path_factory.mktemp("base") / "own"),
    )


def flip(path):
    """Change one bit of the last but one byte; size and time stay."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def misquote(path):
    """Change a prompt in a file of JSON, which stays valid."""
    content = json.loads(path.read_bytes())
    content["samples"][0]["prompt"] += "!"
    path.write_text(f"{json.dumps(content, indent=1)}\n")


WEIGHTS = "pytorch_lora_weights.safetensors"
MLFLOW = "mlflow/artifacts/**/adapter_weights"
# What is damaged: files, how, what the check says of the first file, what its remedy says, what a repair does.
TABLE = [
    ("an image", lambda home: [home.blob(home.image)], flip, "image", r"Collect .*png of pictures", "nothing"),
    ("an image is gone", lambda home: [home.blob(home.image)], Path.unlink, "image", r"Collect .* pictures", "nothing"),
    ("a mask", lambda home: [home.blob(home.mask)], flip, "mask", r"Collect .*mask.png of pictures", "nothing"),
    ("a drawn image", lambda home: [home.blob(home.drawn)], flip, "drawn image", r"Draw .* seed 7: 'a car'", "nothing"),
    ("a run's adapter", lambda home: home.files(f"runs/table/*/adapter/{WEIGHTS}"), flip, "adapter", "", "restores"),
    ("its kohya file", lambda home: home.files("runs/*/*/adapter/table.safetensors"), flip, "adapter", "", "restores"),
    ("its adapter.json", lambda home: home.files("runs/*/*/adapter/adapter.json"), flip, "adapter", "", "restores"),
    ("a runner-up", lambda home: home.files(f"runs/*/*/runner-up/{WEIGHTS}"), flip, "adapter", "Train", "nothing"),
    ("a release", lambda home: home.files(f"runs/*/*/release/{WEIGHTS}"), Path.unlink, "adapter", "", "restores"),
    ("MLflow's copy", lambda home: home.files(f"{MLFLOW}/{WEIGHTS}"), flip, "adapter", "", "restores"),
    ("MLflow's manifest", lambda home: home.files(f"{MLFLOW}/adapter.json"), Path.unlink, "adapter", "", "restores"),
    ("a download", lambda home: home.files(f"cache/adapters/*/*/{WEIGHTS}"), flip, "adapter", "", "restores"),
    ("a duel", lambda home: home.files("runs/*/*/release/duel.json"), Path.unlink, "adapter", "", "restores"),
    ("a run's duel", lambda home: home.files("runs/*/*/evaluation/duel.json"), misquote, "duel", "", "restores"),
    ("a decision", lambda home: home.files("runs/*/*/release/decision.json"), flip, "adapter", "", "restores"),
    ("the grid", lambda home: home.files("runs/*/*/evaluation/grid.png"), flip, "picture", "", "restores"),
    ("a sample", lambda home: home.files("runs/*/*/evaluation/samples/*")[:1], flip, "picture", "--force", "nothing"),
    ("latents", lambda home: home.files("cache/latents/**/*.safetensors")[:1], flip, "cache", "", "deletes"),
    ("features", lambda home: home.files("cache/features/*")[:1], flip, "cache", "", "deletes"),
    ("a cache's JSON", lambda home: home.files("cache/file-digests.json"), flip, "cache", "", "deletes"),
    ("a checkpoint", lambda home: [home.checkpoint / "state.json"], flip, "checkpoint", "continues", "nothing"),
    ("kept weights", lambda home: [home.kept], flip, "checkpoint", "Train it again", "nothing"),
    (
        "a base elsewhere",
        lambda home: [home.config_base / "unet" / "diffusion_pytorch_model.safetensors"],
        flip,
        "base model",
        "Copy",
        "nothing",
    ),
    (
        "a base",
        lambda home: [home.base / "unet" / "diffusion_pytorch_model.safetensors"],
        flip,
        "base model",
        "sdlora pretrain",
        "nothing",
    ),
]


@pytest.mark.parametrize(
    ("files", "damage", "kind", "remedy", "repair"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_damage_is_found_and_repaired_if_a_whole_copy_exists(home, files, damage, kind, remedy, repair):
    paths = files(home)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}
    expected = {str(path) for path in paths}
    try:
        for path in paths:
            damage(path)
        damaged = {path: path.read_bytes() if path.exists() else None for path in paths}
        found = [each for each in home.verify() if each.where in expected]
        assert {each.where for each in found} == expected
        assert {path: path.read_bytes() if path.exists() else None for path in paths} == damaged
        assert found[0].kind == kind
        assert found[0].problem == ("missing" if damage is Path.unlink else "damaged")
        assert re.search(remedy or {"restores": "A whole copy is", "deletes": "made again"}[repair], found[0].remedy)
        assert not any(each.repaired for each in found)

        repaired = [each for each in home.verify(repair=True) if each.where in expected]
        assert [each.repaired for each in repaired] == [repair != "nothing"] * len(paths)
        left = {path: path.read_bytes() if path.exists() else None for path in paths}
        whole = {path: content for path, (content, _) in before.items()}
        assert left == {"restores": whole, "deletes": dict.fromkeys(paths), "nothing": damaged}[repair]
    finally:
        for path, (content, time_ns) in before.items():
            path.write_bytes(content)
            os.utime(path, ns=(time_ns, time_ns))


def test_a_whole_home_has_no_damage(home):
    assert home.verify() == []


def test_a_snapshot_is_restored_from_the_list_of_images_in_mlflow(home):
    with ImageStore.open(home.folder) as store:
        whole = load_snapshot(store, home.snapshot)
        assert any(row.mask for row in whole.rows)
        with store.write() as session:
            session.execute(update(SnapshotImageTable).values(captions=["another"]))
        (found,) = home.verify()
        assert (found.kind, found.repaired) == ("snapshot", False)
        assert "MLflow" in found.remedy
        (repaired,) = home.verify(repair=True)
        assert repaired.repaired
        assert load_snapshot(store, home.snapshot) == whole
    assert home.verify() == []


def test_the_pictures_of_a_duel_that_shows_a_purged_image_are_left_alone(home):
    with ImageStore.open(home.folder) as store:
        purged = {row.sha256: "reason" for row in load_snapshot(store, home.snapshot).rows}
    assert list(picture_copies(home.folder, {}))
    assert not list(picture_copies(home.folder, purged))


@pytest.mark.parametrize("column", ["captions SET text", "members SET verdict"])
def test_a_flipped_letter_of_a_caption_or_a_verdict_is_noticed(column, home):
    path = home.folder / "images.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = path.read_bytes()
        connection.execute(f"UPDATE {column} = 'zebra' WHERE id = 1")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    changed = path.read_bytes()
    try:
        places = [match.start() for match in re.finditer(b"zebra", changed)]
        assert len(places) >= 2  # in the table and in an index
        for place in places:
            path.write_bytes(changed[:place] + b"c" + changed[place + 1 :])
            found = [each for each in home.verify() if each.kind == "database"]
            assert [(each.problem, each.where) for each in found] == [("damaged", str(path))]
            assert "backup" in found[0].remedy
    finally:
        path.write_bytes(before)


def doctor(home, *options):
    return CliRunner().invoke(app, ["doctor", "--home", str(home.folder), *options], env={"COLUMNS": "300"})


def test_the_command_reports_repairs_and_tells_by_its_exit_status(home):
    (path,) = home.files(f"runs/*/*/adapter/{WEIGHTS}")
    flip(path)
    assert doctor(home).exit_code == 0  # the quick check reads no adapter
    found = doctor(home, "--deep")
    assert found.exit_code == 1
    assert f"is damaged: {path}" in found.output
    repaired = doctor(home, "--deep", "--repair")
    assert (repaired.exit_code, " repaired, 0 remaining" in repaired.output) == (0, True)
    assert "everything that has a digest is whole" in doctor(home, "--deep").output
    assert doctor(home, "--repair").exit_code == 2


def test_images_without_bytes_are_a_problem_of_the_quick_check_and_collecting_brings_them_back(home):
    blobs = home.folder / "blobs"
    shutil.rmtree(blobs)
    quick = doctor(home)
    assert quick.exit_code == 1
    assert "24 of 24 images that were looked up have no bytes" in quick.output
    with ImageStore.open(home.folder) as store:
        (drawn,) = [each for each in home.verify() if each.kind != "picture"][-1:]
        collect(store.existing_dataset("table"), str(home.folder.parent / "pictures"), DataConfig())
    assert drawn.kind == "drawn image"
    left = [each for each in home.verify() if each.kind in ("image", "mask")]
    assert left == []


def test_a_repair_waits_for_no_run_and_touches_nothing_during_one(home):
    with run_lock(home.folder), pytest.raises(TrainingError, match="A run works in"):
        diagnose_deeply(home.folder, SILENT.on_progress, repair=True)


def test_results_of_a_run_are_there_after_a_power_cut(home):
    left = home.disk.after_power_cut(home.folder)
    run = home.run.relative_to(home.folder)
    for part in ("adapter", "release", "runner-up"):
        written = {f"{run}/{part}/{name}": content for name, content in files_in(home.run / part).items()}
        assert written
        assert left.items() >= written.items(), part
    duel = load_duel(home.run / "evaluation")
    for name in ("duel.json", *duel.files):
        assert left[f"{run}/evaluation/{name}"] == (home.run / "evaluation" / name).read_bytes()


def test_an_adapter_without_a_whole_copy_is_trained_again_and_mlflow_gets_it_back(home):
    """The last test: it follows the remedy, and so replaces the run folder."""
    paths = [path for folder in ("runs", "mlflow") for path in home.files(f"{folder}/**/{WEIGHTS}")]
    paths = [path for path in paths if path.parent.name != "runner-up"]
    before = {path: path.read_bytes() for path in paths}
    shutil.rmtree(home.folder / "cache" / "adapters")
    for path in paths:
        flip(path)
    registry = Registry(home.folder)
    with pytest.raises(NoWholeCopyError, match=rf"damaged in MLflow and in {home.run}. Train it again: delete"):
        registry.fetch(registry.versions("table")[0], home.folder)
    shutil.rmtree(home.folder / "cache" / "adapters")
    found = [each for each in home.verify(repair=True) if each.kind == "adapter"]
    assert not any(each.repaired for each in found)
    remedies = {each.where: each.remedy for each in found}
    assert remedies.keys() == {str(path) for path in paths}
    assert all(remedy.startswith(f"Train it again: delete {home.run} ") for remedy in remedies.values())

    shutil.rmtree(home.run)
    again = run_flow(retrain, home.config, home.folder)
    assert (again.version, again.run.digest) == (home.release.version, home.release.run.digest)
    home.verify(repair=True)
    assert {path: path.read_bytes() for path in paths} == before
