from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest

from sdlora.core.errors import ConfigError
from sdlora.records.champions import ScoredVersion
from sdlora.records.decision import Decision
from sdlora.retention import scan
from sdlora.retention.config import FILE, RetentionConfig, load_retention
from sdlora.retention.trash import empty_trash, remove_whole, replace_by_link
from sdlora.store.champions import champion_history, record_decision, record_manual_change
from sdlora.store.image_store import ImageStore
from sdlora.store.removed_files import (
    drop_drawn_images,
    forget_blobs,
    forget_removal,
    record_removal,
    removed_files,
    unreferenced_blobs,
)


def scored(number):
    return ScoredVersion(number, f"{number:064x}", f"{number + 100:064x}", f"{number + 200:064x}")


def decide(session, number, promote, champion, version=None):
    decision = Decision(
        promote=promote,
        reasons=("reason",),
        checks=(),
        duel_digest=f"{number:064x}",
        candidate_digest=scored(number).adapter_digest,
        champion_digest=None,
    )
    return record_decision(session, "ink", version or scored(number), decision, champion)


@pytest.fixture
def store(tmp_path):
    with ImageStore.open(tmp_path / "home") as store:
        yield store


def test_champions_of_all_times_and_what_people_decided_are_protected(store):
    with store.write() as session:
        decide(session, 1, True, None)
        decide(session, 2, False, 1)
        decide(session, 3, True, 1)
        decide(session, 4, False, 3)
        record_manual_change(
            session, champion_history(session, "ink"), "moved by hand", scored(4), "a person in MLflow", "why"
        )
        decide(session, 5, False, 4)
        history = champion_history(session, "ink")
    found = {number: scan.protection(history, number) for number in range(1, 7)}
    assert {number for number, reason in found.items() if reason is None} == {2, 5}
    assert found[1] == found[3] == found[4] == "it is or was the champion"
    assert found[6] == "nothing is decided about it"


def test_a_candidate_waits_with_its_files_until_another_decision(store):
    with store.write() as session:
        decide(session, 1, True, None)
        waiting = Decision(
            promote=False,
            reasons=("reason",),
            checks=(),
            duel_digest=f"{2:064x}",
            candidate_digest=scored(2).adapter_digest,
            champion_digest=None,
            answer="cannot tell",
            waits=True,
        )
        record_decision(session, "ink", scored(2), waiting, 1)
        assert scan.protection(champion_history(session, "ink"), 2) == "its last decision is: waiting"
        decide(session, 3, True, 1)
        assert scan.protection(champion_history(session, "ink"), 2) is None


def test_an_adapter_that_a_person_brought_is_protected(store):
    adopted = replace(scored(2), snapshot_digest=None, train_count=None)
    with store.write() as session:
        decide(session, 1, True, None)
        decide(session, 2, False, 1, adopted)
        assert scan.protection(champion_history(session, "ink"), 2) == (
            "a person brought it, and it cannot be trained again"
        )


def draw(store, content, version="ink version 1", seed=0):
    return store.add_generation(content, model_version=version, prompt="a", seed=seed, steps=1, guidance_scale=1.0)


def test_drawn_images_that_a_person_rated_are_no_garbage(store):
    old, rated, withdrawn, new = (draw(store, name.encode(), seed=seed) for seed, name in enumerate("abcd"))
    store.rate(rated, 5)
    store.rate(withdrawn, 1)
    store.undo_rating(withdrawn)
    with store.read() as session:
        assert [image.sha256 for image in scan.unrated_drawn_images(session, store.blobs)] == [old, new]
        assert scan.rated_versions(session) == {"ink version 1"}


def test_bytes_of_a_removed_drawn_image_go_after_its_row_unless_it_is_drawn_again(store):
    first, second = draw(store, b"one", seed=1), draw(store, b"two", seed=2)
    rated = draw(store, b"three", seed=3)
    store.rate(rated, 4)
    with store.write() as session:
        drop_drawn_images(session, [first, second, rated])
    assert store.generation_count() == 1
    draw(store, b"two", seed=2)
    with store.write() as session:
        assert unreferenced_blobs(session) == [first]
        forget_blobs(session, [first])
    with store.read() as session:
        assert unreferenced_blobs(session) == []


def test_the_first_record_of_a_removal_stays_until_it_is_forgotten(store):
    with store.write() as session:
        record = record_removal(session, "ink", 3, "old")
        assert record_removal(session, "ink", 3, "other") == record
        assert (list(removed_files(session, "ink")), removed_files(session, "oil")) == ([3], {})
        assert str(record) == f"files removed by retention on {record.removed_at:%Y-%m-%d}"
        forget_removal(session, "ink", 3)
        assert removed_files(session, "ink") == {}


def test_a_file_with_a_name_elsewhere_frees_nothing(tmp_path):
    for name in ("adapter", "release", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "adapter" / "w").write_bytes(b"x" * 1000)
    os.link(tmp_path / "adapter" / "w", tmp_path / "release" / "w")
    (tmp_path / "other" / "n").write_bytes(b"y" * 10)
    assert scan.freed_bytes([tmp_path / "release", tmp_path / "other"]) == 10
    assert scan.freed_bytes([tmp_path / "release", tmp_path / "adapter"]) == 1000


def test_equal_weights_of_a_copied_home_become_one_file_again(tmp_path):
    run = tmp_path / "run"
    for folder in ("adapter", "release"):
        (run / folder).mkdir(parents=True)
        (run / folder / "ink.safetensors").write_bytes(b"weights")
        (run / folder / "other.safetensors").write_bytes(folder.encode())  # of equal size
    found = scan.stored_run(run)
    assert found.parts == {"adapter", "release"}
    assert [path.name for path in found.second_copies] == ["ink.safetensors", "other.safetensors"]
    outcomes = [replace_by_link(path, run / "adapter" / path.name) for path in found.second_copies]
    assert outcomes == [True, False]
    assert scan.stored_run(run).second_copies == (run / "release" / "other.safetensors",)
    assert (run / "release" / "other.safetensors").read_bytes() == b"release"


def test_a_folder_leaves_its_place_before_the_first_of_its_files_is_deleted(tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "adapter"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"w")

    def killed(path, **_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_whole(tmp_path, folder)
    assert not folder.exists()
    assert len(list((tmp_path / "trash").iterdir())) == 1
    empty_trash(tmp_path)
    assert not list((tmp_path / "trash").iterdir())
    remove_whole(tmp_path, folder)  # gone already


def test_rules_come_from_the_file_of_the_state_folder(tmp_path):
    assert load_retention(tmp_path) == RetentionConfig()
    (tmp_path / FILE).write_text("lost_candidates: 3\npages:\n")
    assert load_retention(tmp_path) == RetentionConfig(lost_candidates=3)
    (tmp_path / FILE).write_text("lost_candidate: 3\n")
    with pytest.raises(ConfigError, match=r"lost_candidate: unknown setting\. Did you mean 'lost_candidates'"):
        load_retention(tmp_path)
    (tmp_path / FILE).write_text("lost_candidates: -1\n")
    with pytest.raises(ConfigError, match=r"lost_candidates: .*-1"):
        load_retention(tmp_path)
