"""Drawn images under `sdlora images`, and files instead of ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli.app import app
from sdlora.core.errors import DataError
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from tests.stores import opened_dataset
from tests.tiny import draw_images
from tests.unit.data.drawing import drawing, encoded

DRAWN = encoded(drawing(11))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Three collected images, and one that a version drew."""
    with opened_dataset(tmp_path / "home") as dataset:
        collect(dataset, str(draw_images(tmp_path / "pictures", 3)), DataConfig())
        dataset.store.add_generation(
            DRAWN,
            model_version="icons version 2",
            prompt="a tiger [bold]",
            negative_prompt="text",
            seed=5,
            steps=30,
            guidance_scale=6.5,
        )
    (tmp_path / "drawn.png").write_bytes(DRAWN)
    return tmp_path / "home"


def run(home: Path, *arguments: str):
    return CliRunner().invoke(app, ["--home", str(home), "images", *map(str, arguments)])


def drawn_sha256(home: Path) -> str:
    with opened_dataset(home) as dataset:
        return dataset.store.generations()[0].sha256


def test_drawn_images_are_listed_with_prompt_seed_and_stars(home):
    assert "1 images were drawn by models: sdlora images --drawn" in run(home).output
    before = run(home, "list", "--drawn").output
    assert run(home, "rate", drawn_sha256(home), "--stars", "4", "--by", "ana").exit_code == 0
    assert run(home, "rate", drawn_sha256(home), "--stars", "5", "--by", "ben").exit_code == 0
    after = run(home, "--drawn").output
    row = f"{drawn_sha256(home)[:10]} icons version 2 5 4.5 a tiger [bold]"
    assert row not in " ".join(before.split())
    assert row in " ".join(after.split())
    assert run(home, "--drawn", "--rejected").exit_code == 2


def test_show_tells_how_an_image_was_drawn_and_rated(home):
    run(home, "rate", drawn_sha256(home)[:9], "--stars", "2", "--why", "too dark")
    shown = run(home, "show", drawn_sha256(home)[:9]).output
    for expected in (drawn_sha256(home), "drawn by a model, not collected", "2 of 5", "too dark"):
        assert expected in shown
    assert "icons version 2 a tiger [bold] text 5 30 6.5" in " ".join(shown.split())


def test_a_drawn_image_has_no_verdict_and_the_message_says_how_to_collect_it(home):
    for command in (["accept", "--why", "x"], ["caption", "x"], ["purge", "--why", "x", "--yes"]):
        refused = run(home, command[0], drawn_sha256(home), *command[1:])
        assert refused.exit_code == 1
        assert "was drawn by a model and is not collected" in refused.output
        assert "generated://?min_stars=4" in refused.output


def test_every_image_command_takes_a_file_for_an_id(home, tmp_path):
    (file, *_) = sorted((tmp_path / "pictures").glob("*.png"))
    with opened_dataset(home) as dataset:
        sha256 = next(image.sha256 for image in dataset.images() if image.files[0].endswith(file.name))
    assert sha256 in run(home, "show", file).output
    assert drawn_sha256(home) in run(home, "show", tmp_path / "drawn.png").output
    for command in (
        ["rate", file, "--stars", "4"],
        ["caption", file, "a new caption"],
        ["reject", file, "--why", "a logo"],
        ["undo", file],
        ["accept", file, "--why", "fine"],
        ["purge", file, "--why", "a takedown", "--yes"],
    ):
        done = run(home, *command)
        assert done.exit_code == 0, done.output
        assert sha256[:10] in done.output
    assert run(home, "rate", tmp_path / "drawn.png", "--stars", "5").exit_code == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere.png", "expected the first digits of an image's SHA-256, or the path of a file"),
        ("x" * 5000, "expected the first digits"),
        ("a\0b", "expected the first digits"),
        ("stranger.png", "neither as a collected nor as a drawn image"),
        ("abc123", "expected the first digits of one image's SHA-256, found none"),
    ],
)
def test_what_is_no_image_is_refused_before_anything_is_done(home, tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    Path("stranger.png").write_bytes(encoded(drawing(99)))
    refused = run(home, "rate", "drawn.png", text, "--stars", "5")
    assert refused.exit_code == 1
    assert message in refused.output.replace("\n", " ")
    with opened_dataset(home) as dataset:
        assert dataset.store.generations()[0].stars is None


def test_digits_win_over_a_file_of_that_name(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = drawn_sha256(home)[:8]
    Path(name).write_bytes(encoded(drawing(99)))
    assert run(home, "show", name).exit_code == 0
    assert "neither as a collected" in run(home, "show", f"./{name}").output


def test_an_ambiguous_beginning_names_the_candidates(home):
    with opened_dataset(home) as dataset, pytest.raises(DataError, match="expected the first digits of one image"):
        dataset.store.find("")
