"""After a takedown nothing in the state folder shows the image, and what lies elsewhere is named."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from deployments.cli.app import app
from deployments.takedown import clear_copies
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import make_snapshot
from sdlora.evaluation.blanking import GREY
from sdlora.evaluation.config import GateConfig
from sdlora.evaluation.gate import decide
from sdlora.records.comparison import Comparison, load_comparison
from sdlora.records.duel import load_duel
from sdlora.release.comparison_page import write_comparison_page
from sdlora.release.data_page import write_data_page
from sdlora.release.folder import write_release
from sdlora.release.record import RejectedImage
from sdlora.store.image_store import ImageStore
from sdlora.store.lineage import record_version
from tests.stores import opened_dataset
from tests.tiny import draw_images
from tests.unit.release.made_record import FULL_DATA, made_record, png

CONFIG = DataConfig(min_train_images=1, min_held_out_images=1)
RUN = Path("runs", "icons", "0123456789abcdef")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    with opened_dataset(home) as dataset:
        collect(dataset, str(draw_images(tmp_path / "pictures", 12)), CONFIG)
        clean(dataset, CONFIG)
        pages = home / "pages" / "icons"
        write_data_page(dataset, CONFIG, pages / "data.html", title="Images")
        snapshot = make_snapshot(dataset, CONFIG)
        with dataset.store.write() as session:
            record_version(session, "icons", 3, "f" * 64, snapshot.digest)
        write_data_page(
            dataset, CONFIG, home / "pages" / "icons" / "data-1.html", title="Images", snapshot_digest=snapshot.digest
        )
    return home


def images(home: Path, split: str) -> list[str]:
    with opened_dataset(home) as dataset:
        return [image.sha256 for image in dataset.images() if image.split == split]


def publish(home: Path, held_out: str, train: str, rejected: str) -> Path:
    """A run folder with a release whose pictures show these images, and what MLflow keeps of it in the same folder."""
    run = home / RUN
    data = replace(FULL_DATA, rejected=[RejectedImage("left-out.png", "blank", png(colour="blue"), rejected)])
    record = made_record(run, data=data, data_page=home / "pages" / "icons" / "data-1.html")
    first, *others = record.duel.samples
    first = first.model_copy(update={"held_out_sha256": held_out, "nearest_training_sha256": train})
    duel = record.duel.model_copy(update={"samples": (first, *others)})
    (run / "evaluation" / "duel.json").write_text(duel.model_dump_json())
    release = write_release(run / "release", replace(record, duel=duel, decision=decide(duel, GateConfig())))
    artifacts = home / "mlflow" / "artifacts" / "icons" / "1" / "artifacts"
    shutil.copytree(release, artifacts / "model")
    (artifacts / "images").mkdir()
    shutil.copy(run / "evaluation" / "grid.png", artifacts / "images")
    shutil.copytree(release, home / "cache" / "adapters" / "f" / "adapter_weights")
    return run


def show(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def clear(home: Path, sha256: str):
    with ImageStore.open(home) as store:
        return clear_copies(store, store.purge(sha256, "a takedown", "ana").lineage)


def named(home: Path, sha256: str) -> list[str]:
    return [str(page) for page in home.rglob("*.html") if f'data-image="{sha256[:16]}"' in page.read_text()]


@pytest.mark.parametrize("split", ["held_out", "train"])
def test_nothing_below_the_state_folder_shows_a_purged_image_and_all_else_is_shown_as_before(
    home: Path, split: str
) -> None:
    (held_out, *_), (train, other, *_) = images(home, "held_out"), images(home, "train")
    run = publish(home, held_out, train, "e" * 64)
    gone = held_out if split == "held_out" else train
    column, untouched = ("real", "nearest") if split == "held_out" else ("nearest", "real")
    samples = run / "evaluation" / "samples"
    before = {path.name: show(path) for path in samples.iterdir()}
    grid = show(run / "evaluation" / "grid.png")
    assert len(named(home, gone)) == 8  # two data pages; report and data page of the release and of its two copies
    cleared = clear(home, gone)
    assert len(cleared.pages) == 8
    assert not named(home, gone)
    assert len(named(home, other)) == 5
    assert all("purged</div>" in page.read_text() for page in cleared.pages)
    assert np.all(show(samples / f"00-{column}.png") == GREY)
    for name in (f"00-{untouched}.png", "00-base.png", "00-candidate.png", f"01-{column}.png"):
        assert np.array_equal(show(samples / name), before[name])
    copies = [path for path in home.rglob("grid.png") if path.parent.name != "evaluation"]
    assert len(copies) == 4
    for path in (run / "evaluation" / "grid.png", *copies):
        assert np.array_equal(show(path), grid) == (split == "train")  # that grid shows no training image
    changed = np.any(show(run / "evaluation" / "grid.png") != grid, axis=-1)
    assert changed.mean() < 0.1  # one cell
    assert load_duel(run / "evaluation").digest() == load_duel(run / "release").digest()


def test_a_takedown_that_was_killed_is_finished_by_the_same_command(home: Path) -> None:
    (held_out, *_), (train, *_) = images(home, "held_out"), images(home, "train")
    run = publish(home, held_out, train, "e" * 64)
    old = (run / "release" / "grid.png").read_bytes()
    report = (run / "release" / "report.html").read_text()
    clear(home, held_out)
    # As if it had been killed between the duel's own pictures and their copies.
    (run / "release" / "grid.png").write_bytes(old)
    (run / "release" / "report.html").write_text(report)
    clear(home, held_out)
    assert (run / "release" / "grid.png").read_bytes() == (run / "evaluation" / "grid.png").read_bytes() != old
    assert not named(home, held_out)


def test_an_image_that_was_only_left_out_goes_from_the_report_that_showed_it(home: Path) -> None:
    (held_out, *_), (train, *_) = images(home, "held_out"), images(home, "train")
    with opened_dataset(home) as dataset:
        sha256 = dataset.add_image(png(64, "blue"))
        clean(dataset, CONFIG)
    run = publish(home, held_out, train, sha256)
    assert str(run / "release" / "report.html") in named(home, sha256)
    assert set(clear(home, sha256).pages) >= {run / "release" / "report.html"}
    assert not named(home, sha256)


def test_a_page_from_before_pictures_had_names_loses_all_of_them(home: Path) -> None:
    page = home / "pages" / "old.html"
    page.write_text('<p><img src="data:image/png;base64,AA"></p><figure><img class="framed" src="data:b"></figure>')
    clear(home, images(home, "train")[0])
    assert page.read_text() == (
        '<p><img src="data:image/png;base64,AA"></p><figure><div class="blank">purged</div></figure>'
    )


@pytest.mark.parametrize("split", ["held_out", "train"])
def test_a_comparison_that_may_show_a_held_out_image_loses_its_grid(home: Path, split: str) -> None:
    with opened_dataset(home) as dataset:
        digest = dataset.snapshots()[0].digest
    folder = home / "comparisons" / "icons" / "1"
    folder.mkdir(parents=True)
    found = Comparison(
        inputs_digest="1",
        base_digest="2",
        snapshot_digest=digest,
        budget="",
        prompts=1,
        neutral_prompts=2,
        contestants=(),
        differences={},
    )
    (folder / "comparison.json").write_text(found.model_dump_json())
    (folder / "comparison.png").write_bytes(png(32))
    page = write_comparison_page(folder, load_comparison(folder), "icons")
    clear(home, images(home, split)[0])
    assert np.all(show(folder / "comparison.png") == GREY) == (split == "held_out")
    assert ("<img" in page.read_text()) == (split == "train")


def test_the_command_says_what_was_changed_and_what_is_left_to_do(home: Path) -> None:
    (held_out, *_), (train, *_) = images(home, "held_out"), images(home, "train")
    publish(home, held_out, train, "e" * 64)
    arguments = ["--home", str(home), "images", "purge", train, "--why", "a takedown", "--yes"]
    told = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"}).output
    assert f"Pages that no longer show it: {home / 'cache'}" in told
    assert str(home / RUN / "release" / "report.html") in told
    assert str(home / RUN / "evaluation" / "samples" / "00-nearest.png") in told
    assert "Versions that learnt from it: icons version 3" in told
    assert "Remove by hand all copies in other places" in told
    assert "the weights of the versions that learnt from it" in told
