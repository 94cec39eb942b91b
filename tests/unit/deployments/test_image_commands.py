"""What a person does to images and snapshots from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from deployments.cli.app import app
from sdlora.core.tensor_cache import TensorCache
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import make_snapshot
from sdlora.store.lineage import record_version
from tests.stores import opened_dataset
from tests.tiny import draw_images

CONFIG = DataConfig(min_train_images=1, min_held_out_images=1)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Twelve images, a snapshot of them, and a version trained on it."""
    home = tmp_path / "home"
    with opened_dataset(home) as dataset:
        collect(dataset, str(draw_images(tmp_path / "pictures", 12)), CONFIG)
        clean(dataset, CONFIG)
        snapshot = make_snapshot(dataset, CONFIG)
        with dataset.store.write() as session:
            record_version(session, "icons", 3, "f" * 64, snapshot.digest)
    return home


def run(home: Path, *arguments: str, answer: str | None = None):
    return CliRunner().invoke(app, ["--home", str(home), *arguments], input=answer, env={"COLUMNS": "200"})


def first_image(home: Path, split: str = "train") -> str:
    with opened_dataset(home) as dataset:
        return next(image.sha256 for image in dataset.images() if image.split == split)


def test_the_list_is_what_images_shows_by_itself(home):
    assert "12 images: 12 accepted, 0 rejected" in run(home, "images").output
    assert "12 images" in CliRunner().invoke(app, ["images", "--accepted", "--home", str(home)]).output


def test_a_reason_that_rejected_nothing_is_answered_with_those_that_did(home):
    run(home, "images", "reject", first_image(home), "--why", "a logo")
    told = run(home, "images", "--reason", "near_dup").output
    assert "No image was rejected by 'near_dup'. Checks that rejected some: person." in told


def test_show_tells_verdict_captions_checks_and_lineage(home):
    shown = run(home, "images", "show", first_image(home)[:8]).output
    assert first_image(home) in shown
    for expected in (
        "accepted, train",
        "a red circle",
        "metadata",
        "low_information",
        "Learnt from it: icons version 3",
    ):
        assert expected in shown
    held_out = run(home, "images", "show", first_image(home, "held_out")).output
    assert "Learnt from it: none" in held_out


def test_home_may_stand_before_or_after_the_name_of_the_command(home):
    sha256 = first_image(home)
    for words in (["images", "--home", str(home), "show", sha256], ["images", "show", sha256, "--home", str(home)]):
        assert CliRunner().invoke(app, words).exit_code == 0


def test_a_decision_is_made_told_and_taken_back(home):
    sha256 = first_image(home)
    done = run(home, "images", "reject", sha256[:10], "--why", "a [bold]logo[/]", "--by", "ana")
    assert f"sdlora images undo {sha256[:10]}" in done.output
    assert "rejected by ana" in run(home, "images", "--rejected").output
    assert "a [bold]logo[/]" in run(home, "images", "show", sha256).output
    undone = run(home, "images", "undo", sha256).output
    assert f"{sha256[:10]} is judged by the checks again: accepted, train: passed all" in undone


def test_a_decision_taken_back_waits_where_the_images_were_judged_under_other_settings(home, tmp_path):
    sha256 = first_image(home)
    config = tmp_path / "mine.yaml"
    config.write_text("name: icons\ndata:\n  min_side_px: 40\n")
    run(home, "images", "reject", sha256, "--why", "a logo")
    undone = run(home, "images", "undo", sha256, "--config", str(config)).output
    assert "judged again by the next sdlora collect or sdlora run" in undone
    assert "not yet judged" in run(home, "images", "show", sha256).output


def test_a_rating_is_kept_shown_and_weighs_in_the_next_snapshot(home):
    sha256 = first_image(home)
    told = run(home, "images", "rate", sha256[:10], "--stars", "5", "--why", "the [i]best[/]", "--by", "ana").output
    assert f"{sha256[:10]} has 5 of 5 stars of yours" in told
    shown = run(home, "images", "show", sha256).output
    for expected in ("5 of 5", "ana", "the [i]best[/]", "counts"):
        assert expected in shown
    with opened_dataset(home) as dataset:
        make_snapshot(dataset, CONFIG)
        train = dataset.snapshots()[0].train_count
    shown = run(home, "snapshot", "show").output
    assert f"{train - 1} weigh 1 ({(train - 1) / (train + 3):.0%}), 1 weigh 4 ({4 / (train + 3):.0%})" in shown
    assert "1 another weight" in shown
    assert "weight 1 -> 4" in shown
    assert run(home, "images", "rate", sha256, "--reset", "--by", "ana").exit_code == 0
    assert "replaced" not in run(home, "images", "show", sha256).output
    assert "taken back" in run(home, "images", "show", sha256).output


def test_rate_wants_stars_or_reset_but_not_both(home):
    sha256 = first_image(home)
    assert run(home, "images", "rate", sha256).exit_code == 2
    assert run(home, "images", "rate", sha256, "--stars", "3", "--reset").exit_code == 2
    refused = run(home, "images", "rate", sha256, "--stars", "9")
    assert refused.exit_code == 1 and "expected 1 to 5" in refused.output


def test_an_edited_caption_makes_a_new_snapshot_and_the_difference_is_told(home):
    sha256 = first_image(home)
    assert run(home, "images", "caption", sha256, "a better caption", "a second one").exit_code == 0
    with opened_dataset(home) as dataset:
        clean(dataset, CONFIG)
        newest = make_snapshot(dataset, CONFIG)
        old = dataset.snapshots()[1]
    told = run(home, "snapshot", "diff", old.digest[:10], newest.digest[:10]).output
    assert "0 came, 0 went, 1 have other captions" in told
    assert "a better caption | a second one" in told
    listed = run(home, "snapshot", "list").output
    assert newest.digest[:10] in listed
    assert "icons version 3" in listed
    shown = run(home, "snapshot", "show").output
    assert newest.digest in shown
    assert f"since {old.digest[:10]}: 0 came" in shown
    assert "1 images have several" in shown


def test_purge_asks_and_then_removes_bytes_and_cached_latents_and_names_the_versions(home):
    sha256, other = first_image(home), first_image(home, "held_out")
    cache = TensorCache(home / "cache" / "latents" / "encoder-64px")
    cache.add({sha256: torch.ones(2), other: torch.zeros(2), f"{sha256}.mirrored": torch.ones(2)})
    (home / "cache" / "features").mkdir(parents=True)
    (home / "cache" / "features" / "set.safetensors").write_bytes(b"of a set of images")

    refused = run(home, "images", "purge", sha256, "--why", "a takedown", answer="n\n")
    assert refused.exit_code == 1
    assert "Nothing was removed" in refused.output
    assert cache.load([sha256])

    with opened_dataset(home) as dataset, dataset.store.write() as session:
        record_version(session, "[b]props", 2, "9" * 64, None)
    done = run(home, "images", "purge", sha256, "--why", "a takedown", answer="y\n")
    assert done.exit_code == 0, done.output
    assert "Versions that learnt from it: icons version 3" in done.output
    assert "Versions adopted from files, which may have learnt from it: [b]props version 2" in done.output
    assert cache.load([sha256, other, f"{sha256}.mirrored"]).keys() == {other}
    assert not list((home / "cache" / "features").iterdir())
    assert not list((home / "blobs").rglob(sha256))
    assert "rejected: purged" in run(home, "images", "show", sha256).output


def test_collecting_ends_well_beside_a_damaged_snapshot_and_says_what_to_do(home, tmp_path):
    with opened_dataset(home) as dataset, dataset.store.write() as session:
        session.connection().exec_driver_sql("UPDATE snapshot_images SET captions = '[]'")
    done = run(home, "collect", str(draw_images(tmp_path / "more", 2, seed=5)))
    assert done.exit_code == 0, done.output
    assert "2 new, 14 in all" in done.output
    assert "The data page does not show the changes. Snapshot" in done.output
    assert "sdlora run" in done.output
    assert (home / "pages" / "icons" / "data.html").is_file()
    assert "does not show the changes" in run(home, "images", "page").output


def test_collecting_ends_well_where_its_page_cannot_be_written(home, tmp_path):
    (home / "pages").write_text("a file where the folder should be")
    done = run(home, "collect", str(draw_images(tmp_path / "more", 2, seed=5)))
    assert done.exit_code == 0, done.output
    assert "2 new, 14 in all" in done.output
    assert "the data page was not written" in done.output
    assert "Data page" not in done.output


def test_commands_on_a_folder_without_images_make_none(tmp_path):
    for words in (["images", "show", "ab"], ["snapshot", "list"]):
        result = run(tmp_path / "misspelt", *words)
        assert result.exit_code == 1
        assert not (tmp_path / "misspelt").exists()


def test_caption_wants_text_or_reset_but_not_both(home):
    sha256 = first_image(home)
    assert run(home, "images", "caption", sha256).exit_code == 2
    assert run(home, "images", "caption", sha256, "text", "--reset").exit_code == 2
