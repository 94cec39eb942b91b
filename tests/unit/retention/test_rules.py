from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sdlora.retention.config import RetentionConfig
from sdlora.retention.rules import plan_removals
from sdlora.retention.state import DrawnImage, State, StoredFile, StoredModel, StoredRun, StoredVersion

PARTS = frozenset({"adapter", "runner-up", "release", "evaluation", "later-decisions"})
NONE = {"lost_candidates": 0, "runner_ups": 0, "pages": 0, "drawn_images": 0, "cache_megabytes": 0}


def version(number, protection=None, style="ink", parts=PARTS, **fields):
    run = StoredRun(Path(f"runs/{style}/{number:016x}"), frozenset(parts))
    return StoredVersion(style, number, protection, (run,), weights_bytes=10, **fields)


def plan(*versions, **settings):
    return plan_removals(State(versions=versions), RetentionConfig(**{"runner_ups": 99, **settings}))


def removed(removals):
    return {(each.version.style, each.version.number) for each in removals if each.kind == "lost candidate"}


def test_the_newest_lost_candidates_of_each_style_stay():
    versions = [version(number, style=style) for style in ("ink", "oil") for number in range(1, 6)]
    assert removed(plan(*versions, lost_candidates=3)) == {("ink", 1), ("ink", 2), ("oil", 1), ("oil", 2)}
    assert removed(plan(*versions, lost_candidates=5)) == set()


def test_protected_versions_stay_and_do_not_count_as_lost_candidates():
    versions = [version(1), version(2, "it is or was the champion"), version(3), version(4, "ann decided about it")]
    assert removed(plan(*versions, lost_candidates=1)) == {("ink", 1)}
    assert removed(plan(*versions, lost_candidates=0)) == {("ink", 1), ("ink", 3)}


def test_of_a_lost_candidate_weights_and_pictures_go_and_records_stay():
    (removal,) = plan(version(1), lost_candidates=0)
    assert {path.name for path in removal.paths} == {"adapter", "runner-up", "release", "evaluation"}
    assert removal.paths[-1].name == "adapter"  # as long as it is there, the run counts as finished
    assert removal.size == 10
    assert "lost_candidates" in removal.why


def test_an_interrupted_removal_is_finished_and_a_finished_one_is_not_repeated():
    begun = version(1, parts={"adapter"}, removed_at=datetime.now(UTC))
    assert "interrupted" in plan(begun, lost_candidates=9)[0].why
    done = StoredVersion("ink", 1, None, (StoredRun(Path("runs/ink/1"), frozenset()),), removed_at=datetime.now(UTC))
    assert plan(done) == ()


def test_a_run_that_trained_again_after_the_removal_or_gave_another_version_is_left_alone():
    removed_at = datetime.now(UTC)
    parts = frozenset({"adapter", "release"})
    run = StoredRun(Path("runs/ink/1"), parts, trained_at=removed_at + timedelta(hours=3))
    assert plan(StoredVersion("ink", 1, None, (run,), removed_at=removed_at)) == ()
    shared = StoredRun(Path("runs/ink/1"), parts, trained_at=removed_at - timedelta(hours=3))
    champion = StoredVersion("ink", 2, "it is or was the champion", (shared,))
    removed = StoredVersion("ink", 1, None, (shared,), removed_at=removed_at)
    assert not any("release" in str(path) for each in plan(removed, champion) for path in each.paths)
    assert any("release" in str(path) for each in plan(removed) for path in each.paths)


def test_a_removed_version_that_became_champion_or_trains_again_is_left_alone():
    now = datetime.now(UTC)
    assert plan(version(1, "it is or was the champion", removed_at=now)) == ()
    (removal,) = plan(version(1, parts={"checkpoints"}, removed_at=now))
    assert removal.paths == ()  # only the weights that are left in MLflow


def test_runner_ups_of_older_versions_go_whatever_became_of_the_version():
    versions = [version(1, "it is or was the champion"), version(2, "x"), version(3, "y")]
    removals = plan(*versions, runner_ups=1)
    assert [(each.kind, each.paths[0].parent.name[-1], each.paths[0].name) for each in removals] == [
        ("runner-up", "2", "runner-up"),
        ("runner-up", "1", "runner-up"),
    ]


def test_checkpoints_of_a_finished_training_go_and_those_of_an_unfinished_one_stay():
    (removal,) = plan(version(1, "x", parts={"adapter", "checkpoints", "kept"}))
    assert (removal.kind, [path.name for path in removal.paths]) == ("checkpoints", ["checkpoints", "kept"])
    assert plan(version(1, "x", parts={"checkpoints", "kept"})) == ()


def test_the_newest_pages_of_each_dataset_stay():
    pages = [StoredFile(Path(f"{name}-{age}"), 1, age, name) for age in range(4) for name in ("a", "b")]
    removals = plan_removals(State(pages=pages), RetentionConfig(pages=3))
    assert [each.paths[0].name for each in removals] == ["a-0", "b-0"]


def test_the_cache_keeps_its_newest_files_within_the_limit():
    files = [StoredFile(Path(f"file-{age}"), 400_000, age, "features") for age in range(5)]
    removals = plan_removals(State(cache=files), RetentionConfig(cache_megabytes=1))
    assert {each.paths[0].name for each in removals} == {"file-0", "file-1", "file-2"}


def test_the_newest_drawn_images_stay_and_unreferenced_models_go():
    state = State(drawn=[DrawnImage(f"{number:064x}", 5) for number in range(3)], models=[StoredModel("m-1", 7)])
    image, model = plan_removals(state, RetentionConfig(drawn_images=2))
    assert (image.key, image.size, image.kind) == (f"{0:064x}", 5, "drawn image")
    assert (model.key, model.size, model.kind) == ("m-1", 7, "model")


@pytest.mark.parametrize("protection", ["it is or was the champion", "ann decided about it"])
def test_no_setting_removes_the_files_of_a_protected_version(protection):
    removals = plan(*(version(number, protection) for number in range(1, 9)), **NONE)
    assert {each.kind for each in removals} == {"runner-up"}


def test_an_empty_state_has_nothing_to_delete():
    assert plan_removals(State(), RetentionConfig(**NONE)) == ()
