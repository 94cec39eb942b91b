"""The style that a command is about: named, the only one, or a question."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli.app import app
from sdlora.store.image_store import ImageStore
from tests.settings import make_style
from tests.tiny import draw_images


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four images of 64 px."""
    return draw_images(tmp_path / "images", 4)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def run(home: Path, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["--home", str(home), *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def rejected(home: Path, dataset: str) -> int:
    with ImageStore.open(home) as store:
        return store.existing_dataset(dataset).counts().rejected


ASKING = (["compare"], ["checks"], ["generate", "a car"], ["export", "x.safetensors"])


@pytest.mark.parametrize("words", ASKING)
def test_of_several_styles_one_has_to_be_named(home, images, words):
    for name in ("comics", "props"):
        make_style(home, name, images)
    example = {"compare": "sdlora compare comics", "checks": "sdlora checks comics"}.get(words[0], "--style comics")
    assert f"There are several styles: comics, props. Name one, such as `{example}`" in run(home, *words, code=1)


def test_a_comparison_without_any_style_says_how_to_get_one(home):
    told = run(home, "compare", code=1)
    assert "sdlora new" in told and "sdlora demo" in told
    assert "no style 'comics'" in run(home, "compare", "comics", code=1)


def test_a_name_and_a_file_are_not_given_together(home, images, tmp_path):
    file = make_style(home, "comics", images)
    for words in (["compare", "comics"], ["checks", "comics"], ["collect", str(images), "--style", "comics"]):
        run(home, *words, "--config", str(file), code=2)


def test_images_join_the_dataset_of_the_only_style_and_are_judged_by_its_settings(home, images):
    make_style(home, "comics", images, data={"dataset": "drawings", "min_side_px": 65})
    told = run(home, "collect", str(images))
    assert "Dataset drawings: 4 new" in told and "4 rejected" in told
    assert "sdlora run comics" in told
    assert rejected(home, "drawings") == 4
    make_style(home, "props", images)
    refused = run(home, "collect", str(images), code=1)
    assert "drawings, props" in refused
    assert "Dataset props: 4 new" in run(home, "collect", str(images), "--style", "props")
    assert rejected(home, "props") == 0


def test_a_dataset_is_judged_by_the_style_that_learns_from_it(home, images):
    make_style(home, "comics", images, data={"dataset": "drawings", "min_side_px": 65})
    run(home, "collect", str(images), "--dataset", "drawings")
    assert rejected(home, "drawings") == 4
    told = run(home, "collect", str(images), "--dataset", "other")
    assert rejected(home, "other") == 0
    assert f"sdlora new other --images {images}" in told
    with ImageStore.open(home) as store:
        sha256 = store.dataset("drawings").images()[0].sha256
    run(home, "images", "accept", sha256, "--why", "good", "--style", "comics")
    assert rejected(home, "drawings") == 3
    assert "fewer than min_side_px = 65" in run(home, "images", "undo", sha256, "--dataset", "drawings")
    assert rejected(home, "drawings") == 4


def test_styles_with_different_settings_for_one_dataset_have_to_be_named(home, images):
    make_style(home, "large", images, data={"dataset": "drawings", "min_side_px": 65})
    make_style(home, "small", images, data={"dataset": "drawings"})
    told = run(home, "collect", str(images), "--dataset", "drawings", code=1)
    assert "large, small. Name one with --style" in told
    run(home, "collect", str(images), "--style", "large")
    assert rejected(home, "drawings") == 4
    run(home, "collect", str(images), "--style", "small")
    assert rejected(home, "drawings") == 0


def test_equal_settings_of_several_styles_need_no_name(home, images, tmp_path):
    more = draw_images(tmp_path / "more", 2, seed=3)
    for name, folder in (("a", images), ("b", more)):
        make_style(home, name, folder, data={"dataset": "drawings", "min_side_px": 65, "sources": [str(folder)]})
    told = run(home, "collect", str(images))
    assert rejected(home, "drawings") == 4
    assert "sdlora run --all" in told


def test_a_broken_style_judges_nothing_by_other_settings(home, images):
    make_style(home, "comics", images).write_text("name: comics\ndata: {min_side: 65}\n")
    assert "min_side_px" in run(home, "collect", str(images), "--dataset", "comics", code=1)
    with ImageStore.open(home) as store:
        assert store.dataset_names() == []


def test_lists_take_a_style_for_its_dataset(home, images, tmp_path):
    make_style(home, "comics", images, data={"dataset": "drawings"})
    make_style(home, "props", images)
    run(home, "collect", str(images), "--style", "comics")
    run(home, "collect", str(draw_images(tmp_path / "two", 2, seed=4)), "--style", "props")
    for words in (["images", "--style", "comics"], ["images", "list", "--style", "comics"]):
        assert len(json.loads(run(home, *words, "--json"))["images"]) == 4
    assert "Name one with --dataset, or a style with --style" in run(home, "images", code=1)
    assert "No snapshot yet of dataset 'drawings'" in run(home, "snapshot", "show", "--style", "comics", code=1)
    assert "pages/drawings/data.html" in run(home, "images", "page", "--style", "comics")
    checks = json.loads(run(home, "checks", "comics", "--json"))["checks"]
    assert {check["rejected"] for check in checks} == {0}
