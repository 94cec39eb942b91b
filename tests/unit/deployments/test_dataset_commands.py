"""What a person does to datasets from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli.app import app
from deployments.cli.options import DEMO_CONFIG
from sdlora.config import load_config
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import make_snapshot
from sdlora.store.image_store import ImageStore
from sdlora.store.selection import Selection
from tests.settings import make_style
from tests.tiny import draw_images

CONFIG = DataConfig(min_train_images=1, min_held_out_images=1)
DEMO = load_config(DEMO_CONFIG).name


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The demo's dataset with a snapshot of six images, and an empty one."""
    with ImageStore.open(tmp_path / "home") as store:
        demo = store.dataset(DEMO)
        collect(demo, str(draw_images(tmp_path / "pictures", 6)), CONFIG)
        clean(demo, CONFIG)
        make_snapshot(demo, CONFIG)
    return tmp_path / "home"


def run(home: Path, *arguments: str, code: int = 0, answer: str | None = None) -> str:
    result = CliRunner().invoke(app, ["--home", str(home), *arguments], input=answer, env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def names(home: Path) -> list[str]:
    with ImageStore.open(home) as store:
        return store.dataset_names()


def test_images_of_ones_own_do_not_get_between_those_of_the_demo(home, tmp_path):
    own = str(draw_images(tmp_path / "own", 20, seed=5))
    refused = run(home, "collect", own, code=1)
    assert f"Give --dataset and a name: a new one, or one of {DEMO}" in refused
    assert names(home) == [DEMO]
    assert "Dataset mine: 20 new, 20 in all" in run(home, "collect", own, "--dataset", "mine")
    with ImageStore.open(home) as store:
        mine = store.dataset("mine")
        snapshot = make_snapshot(mine, CONFIG)
        of_demo = {image.sha256 for image in store.dataset(DEMO).images()}
    assert len(snapshot.rows) == 20
    assert not {row.sha256 for row in snapshot.rows} & of_demo
    shown = run(home, "snapshot", "show", "--dataset", "mine")
    assert f"Snapshot {snapshot.digest} of dataset mine" in shown
    assert not [sha256 for sha256 in of_demo if sha256[:10] in shown]
    # From now on the only dataset but the demo's is the one that is meant.
    assert "Dataset mine: 0 new" in run(home, "collect", own)


def test_a_name_that_no_folder_may_have_is_refused_before_anything_is_collected(home, tmp_path):
    own = str(draw_images(tmp_path / "own", 3, seed=5))
    assert "expected a name of at most 96" in run(home, "collect", own, "--dataset", "n" * 300, code=1)
    assert names(home) == [DEMO]


def test_as_json_every_image_is_listed(home, tmp_path):
    run(home, "collect", str(draw_images(tmp_path / "many", 55, seed=6)), "--dataset", "many")
    assert "the first 50 are shown" in run(home, "images", "--dataset", "many")
    assert len(json.loads(run(home, "images", "--dataset", "many", "--json"))["images"]) == 55


def test_a_command_asks_for_a_dataset_where_there_are_several(home, tmp_path):
    assert "6 images" in run(home, "images")
    run(home, "collect", str(draw_images(tmp_path / "own", 3, seed=5)), "-d", "mine")
    for words in (["images"], ["images", "page"], ["snapshot", "show"]):
        assert f"There are several datasets: {DEMO}, mine. Name one with --dataset" in run(home, *words, code=1)
    assert "3 images" in run(home, "images", "--dataset", "mine")
    with ImageStore.open(home) as store:
        (sha256, *_) = [image.sha256 for image in store.dataset("mine").images()]
        shared = store.dataset("mine").add_from(store.dataset(DEMO), Selection()).new[0]
    assert "dataset mine" in run(home, "images", "show", sha256[:9])  # only one dataset has it
    assert f"There are several datasets: {DEMO}, mine" in run(home, "images", "show", shared[:9], code=1)
    run(home, "images", "caption", shared[:9], "a sword", "-d", "mine")
    assert "a sword" not in run(home, "images", "show", shared[:9], "-d", DEMO)
    assert "Nearest: mine" in run(home, "images", "--dataset", "min", code=1)
    style = tmp_path / "mine.yaml"
    style.write_text("name: mine\n")
    assert "pages/mine/data.html" in run(home, "images", "page", "--config", str(style))


def test_a_misspelt_folder_makes_no_dataset(home):
    run(home, "collect", "no-such-folder", "--dataset", "mine", code=1)
    assert names(home) == [DEMO]


def test_the_first_images_without_a_name_fill_the_dataset_of_the_default_style(tmp_path):
    told = run(tmp_path / "home", "collect", str(draw_images(tmp_path / "own", 3)))
    assert "Dataset style: 3 new" in told
    assert names(tmp_path / "home") == ["style"]


def test_a_dataset_is_built_out_of_another(home):
    with ImageStore.open(home) as store:
        first, second, *_ = store.dataset(DEMO).images()
    tried = run(home, "datasets", "add", "best", "--from", DEMO, "--id", first.sha256[:9], "--dry-run")
    assert first.sha256[:10] in tried and "1 images would join best. Nothing was changed" in tried
    assert names(home) == [DEMO]
    run(home, "datasets", "add", "best", "--from", DEMO, code=2)  # all of them only by --all
    run(home, "datasets", "add", "best", "--from", DEMO, "--all", "--verdict", "accepted", code=2)
    run(home, "datasets", "add", "best", "--from", DEMO, "--verdict", "good", code=2)
    told = run(home, "datasets", "add", "best", "--from", DEMO, "--id", first.sha256[:9], "--id", second.sha256[:9])
    assert "2 images joined best, 0 were there before" in told
    with ImageStore.open(home) as store:
        best = store.dataset("best")
        assert clean(best, CONFIG).decoded == 0
        assert [image.captions for image in best.images()] == [first.captions, second.captions]
    assert "1 images left best" in run(home, "datasets", "remove", "best", "--id", first.sha256[:9])
    assert "removed from the dataset" in run(home, "images", "show", first.sha256[:9], "--dataset", "best")
    assert "1 images would join best" in run(home, "datasets", "add", "best", "--all", "--dry-run")
    assert "1 images are back in best" in run(home, "datasets", "add", "best", "--all")
    listed = run(home, "datasets", "list")
    assert "best 2 1 0 1 0 0" in listed and f"{DEMO} 6 6 0 0 1 0" in listed
    assert "6 different images in all" in listed
    shown = run(home, "datasets", "show", DEMO)
    assert "source pictures: 6 images in 6 files" in shown and "newest of 1 snapshots" in shown


def test_a_dataset_is_renamed_and_deleted(home):
    assert "data.dataset: icons" in run(home, "datasets", "rename", DEMO, "icons")
    assert names(home) == ["icons"]
    assert "1 snapshots stand on dataset 'icons'" in run(home, "datasets", "delete", "icons", "--yes", code=1)
    assert "Nothing was deleted" in run(home, "datasets", "delete", "icons", "--force", code=1, answer="n\n")
    assert names(home) == ["icons"]
    assert "its snapshots are kept" in run(home, "datasets", "delete", "icons", "--force", "--yes")
    assert "icons (deleted) 0" in run(home, "datasets", "list")
    assert "Nearest" not in run(home, "datasets", "show", "icons", code=1)


def test_a_takedown_names_the_datasets_and_the_styles_to_train_again(home):
    from sdlora.store.lineage import record_version

    with ImageStore.open(home) as store:
        dataset = store.dataset(DEMO)
        image = next(image for image in dataset.images() if image.split == "train")
        store.dataset("other").add_from(dataset, Selection(ids=(image.sha256,)))
        with store.write() as session:
            record_version(session, "comics", 1, "f" * 64, store.snapshots()[0].digest, DEMO)
    told = run(home, "images", "purge", image.sha256[:9], "--why", "a takedown", "--yes")
    assert f"Datasets that had it: {DEMO}, other" in told
    assert "Styles to train again: comics" in told


def test_a_dataset_does_not_take_the_name_that_another_style_will_fill(home, tmp_path):
    ink, comics = (make_style(home, name, tmp_path / "pictures") for name in ("ink", "comics"))
    with ImageStore.open(home) as store:
        store.dataset("ink").add_image(b"an image")
    refused = run(home, "datasets", "rename", "ink", "comics", code=1)
    assert f"{comics}: the style comics will fill the dataset comics" in refused
    assert f"first set data.dataset: comics in {ink}" in refused
    assert f"the style {DEMO} will fill" not in run(home, "datasets", "rename", "ink", DEMO, code=1)  # it is there
    assert names(home) == [DEMO, "ink"]
    make_style(home, "ink", tmp_path / "pictures", data={"dataset": "comics"})
    assert "Learning from it now: comics, ink." in run(home, "datasets", "rename", "ink", "comics")
    assert names(home) == ["comics", DEMO]
