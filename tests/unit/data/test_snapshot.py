from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdlora.core.errors import DataError
from sdlora.data.changes import changes_since_snapshot, compare_snapshots
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.decoding.decode import decode_rgb
from sdlora.data.duplicates.difference import differences
from sdlora.data.duplicates.fingerprint import HASH_DISTANCE, SEARCHES, fingerprint
from sdlora.data.snapshot import SnapshotRow, latest_snapshot, load_snapshot, make_snapshot, snapshot_digest
from sdlora.store.dataset import Dataset
from tests.stores import opened_dataset
from tests.unit.data.drawing import drawing, encoded, fill_folder, icon

CONFIG = DataConfig(min_train_images=4, min_held_out_images=2)

rows = st.lists(
    st.builds(
        SnapshotRow,
        sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
        captions=st.lists(st.text(), min_size=1, max_size=3).map(tuple),
        split=st.sampled_from(["train", "held_out"]),
    ),
    unique_by=lambda row: row.sha256,
    max_size=8,
)


def _snapshot_of(dataset: Dataset, folder: Path, config: DataConfig = CONFIG):
    collect(dataset, str(folder), config)
    clean(dataset, config)
    return make_snapshot(dataset, config)


@settings(deadline=None)
@given(rows=rows, shuffle=st.randoms())
def test_the_digest_does_not_depend_on_the_order_of_rows(rows, shuffle) -> None:
    expected = snapshot_digest(rows)
    shuffle.shuffle(rows)
    assert snapshot_digest(rows) == expected


@settings(deadline=None)
@given(rows=rows.filter(bool), text=st.text(min_size=1))
def test_the_digest_changes_with_every_part_of_a_row(rows, text) -> None:
    first, rest = rows[0], rows[1:]
    other_side = "train" if first.split == "held_out" else "held_out"
    changed = [
        SnapshotRow(first.sha256, (*first.captions, text), first.split),
        SnapshotRow(first.sha256, first.captions, other_side),
        replace(first, background="black"),
        replace(first, weight=2.0),
        SnapshotRow(first.sha256[::-1] + "0", first.captions, first.split),
    ]
    digests = {snapshot_digest([row, *rest]) for row in [first, *changed]} | {snapshot_digest(rest)}
    assert len(digests) == 7


def test_a_snapshot_holds_the_accepted_images_with_captions_and_comes_back(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(20))
    (folder / "text.png").write_text("no picture")
    snapshot = _snapshot_of(dataset, folder)
    assert len(snapshot.rows) == 20
    assert sorted(row.captions for row in snapshot.rows) == sorted((f"drawing number {seed}",) for seed in range(20))
    assert set(snapshot.train) | set(snapshot.held_out) == set(snapshot.rows)
    assert not set(snapshot.train) & set(snapshot.held_out)
    assert (
        load_snapshot(dataset.store, snapshot.digest) == load_snapshot(dataset.store, snapshot.digest[:10]) == snapshot
    )
    assert latest_snapshot(dataset) == snapshot


def test_the_same_images_give_the_same_digest_on_another_machine_and_in_other_steps(tmp_path: Path) -> None:
    digests = []
    for machine, steps in (("a", [range(40)]), ("b", [range(25, 40), range(10), range(40)])):
        with opened_dataset(tmp_path / machine / "home") as dataset:
            for step in steps:
                shutil.rmtree(tmp_path / machine / "pictures", ignore_errors=True)
                snapshot = _snapshot_of(dataset, fill_folder(tmp_path / machine / "pictures", step))
            digests.append(snapshot.digest)
    assert digests[0] == digests[1]


def test_nothing_new_gives_the_snapshot_that_is_there(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(20))
    first = _snapshot_of(dataset, folder)
    assert not changes_since_snapshot(dataset).any
    assert _snapshot_of(dataset, folder) == first
    with dataset.store.read() as session:
        assert session.connection().exec_driver_sql("SELECT count(*) FROM snapshots").scalar() == 1


def test_new_images_move_no_old_one_and_are_listed_as_new(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(20))
    old = _snapshot_of(dataset, folder)
    fill_folder(folder, range(20, 35))
    collect(dataset, str(folder), CONFIG)
    clean(dataset, CONFIG)
    changes = changes_since_snapshot(dataset)
    assert (len(changes.added), changes.removed, changes.recaptioned) == (15, (), ())
    new = make_snapshot(dataset, CONFIG)
    assert set(old.rows) < set(new.rows)
    assert compare_snapshots(old, new) == changes
    with dataset.store.read() as session:
        lineage = session.connection().exec_driver_sql("SELECT id, parent_id FROM snapshots ORDER BY id").all()
    assert lineage == [(1, None), (2, 1)]


def test_an_edited_caption_makes_another_snapshot(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(20))
    old = _snapshot_of(dataset, folder)
    sha256 = old.rows[3].sha256
    dataset.set_captions(sha256, ["said better"])
    assert changes_since_snapshot(dataset).recaptioned == (sha256,)
    with pytest.raises(DataError, match="1 images have no verdict"):
        make_snapshot(dataset, CONFIG)  # the new caption may be one that a check rejects
    assert clean(dataset, CONFIG).decoded == 0
    new = make_snapshot(dataset, CONFIG)
    assert new.digest != old.digest
    assert compare_snapshots(old, new).recaptioned == (sha256,)
    assert load_snapshot(dataset.store, old.digest) == old


def test_held_out_images_never_look_like_training_images(dataset: Dataset) -> None:
    # Families of look-alikes: the same icon with one stroke more or less, and a moved or smaller copy.
    config = CONFIG.model_copy(update={"near_duplicate_difference": 2.0, "suspect_difference": 40.0})
    for seed in range(17):
        base = icon(seed)
        changed = base.copy()
        changed.paste("black", (30, 30, 33, 33))
        for image in (base, changed, icon(seed, side_px=60), icon(seed, side_px=90)):
            dataset.add_image(encoded(image))
        if seed % 8 == 0:
            clean(dataset, config)
            if seed:
                make_snapshot(dataset, config)
    clean(dataset, config)
    snapshot = make_snapshot(dataset, config)
    assert len(snapshot.rows) > 40
    looks = [fingerprint(decode_rgb(dataset.store.read_bytes(row.sha256))) for row in snapshot.rows]
    pairs = [
        (one, other)
        for one, other in combinations(range(len(looks)), 2)
        if min((looks[one].hashes[a] ^ looks[other].hashes[b]).bit_count() for a, b in SEARCHES) <= HASH_DISTANCE
    ]
    alike = {pair for pair, found in zip(pairs, differences(looks, np.array(pairs)), strict=True) if found < 40}
    sides = [row.split for row in snapshot.rows]
    assert not [pair for pair in alike if sides[pair[0]] != sides[pair[1]]]
    assert len(alike) >= 10  # there were look-alikes to keep together


def test_a_look_alike_of_both_sides_is_rejected_with_its_reason(dataset: Dataset, folder: Path) -> None:
    strict = CONFIG.model_copy(update={"near_duplicate_difference": 0.0, "suspect_difference": 0.0})
    for seed in range(12):
        for side_px in (64, 90):
            dataset.add_image(encoded(icon(seed, side_px)))
    clean(dataset, strict)
    apart = make_snapshot(dataset, strict)
    loose = CONFIG.model_copy(update={"near_duplicate_difference": 0.0})
    clean(dataset, loose)
    together = make_snapshot(dataset, loose)
    gone = {row.sha256 for row in apart.rows} - {row.sha256 for row in together.rows}
    assert gone
    leaks = dataset.images("rejected", rejected_by="split_leak")
    assert {image.sha256 for image in leaks} == gone
    assert all("on the other side of the train/held-out split" in image.reason for image in leaks)
    assert make_snapshot(dataset, loose) == together
    kept = {row.sha256: row.split for row in apart.rows}
    assert all(row.split == kept[row.sha256] for row in together.rows)


def test_too_few_images_are_refused_with_counts_reasons_and_nothing_is_recorded(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(3))
    (folder / "text.png").write_text("no picture")
    with pytest.raises(DataError) as caught:
        _snapshot_of(dataset, folder)
    for words in ("min_train_images = 4", "min_held_out_images = 2", "Of 4 images 3 are accepted", "unreadable 1"):
        assert words in str(caught.value)
    assert latest_snapshot(dataset) is None
    assert {image.split for image in dataset.images()} == {None}


def test_images_that_were_not_cleaned_with_these_settings_are_refused(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(20))
    _snapshot_of(dataset, folder)
    with pytest.raises(DataError, match="20 images have no verdict"):
        make_snapshot(dataset, CONFIG.model_copy(update={"min_side_px": 33}))


def test_an_image_without_a_caption_has_the_empty_one(dataset: Dataset) -> None:
    for seed in range(20):
        dataset.add_image(encoded(drawing(seed)))
    clean(dataset, CONFIG)
    assert {row.captions for row in make_snapshot(dataset, CONFIG).rows} == {("",)}


def test_an_unknown_digest_is_refused(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="feed"):
        load_snapshot(dataset.store, "feed")


@pytest.mark.parametrize("captions", ["[]", '["other"]', "no JSON", "null"])
def test_a_damaged_snapshot_is_named_with_the_remedy_and_mended_by_the_same_images(
    dataset: Dataset, folder: Path, captions: str
) -> None:
    snapshot = _snapshot_of(dataset, fill_folder(folder, range(20)))
    with dataset.store.write() as session:
        session.connection().exec_driver_sql("UPDATE snapshot_images SET captions = ? WHERE image_id = 1", (captions,))
    for read in (lambda: load_snapshot(dataset.store, snapshot.digest), lambda: latest_snapshot(dataset)):
        with pytest.raises(DataError, match=rf"{snapshot.digest[:16]} is damaged.*backup.*sdlora run"):
            read()
    assert make_snapshot(dataset, CONFIG) == snapshot
    assert load_snapshot(dataset.store, snapshot.digest) == snapshot


def test_a_snapshot_remembers_what_transparent_parts_lie_on(dataset: Dataset) -> None:
    config = CONFIG.model_copy(update={"min_train_images": 1, "min_held_out_images": 1})
    for seed in range(8):
        dataset.add_image(encoded(drawing(seed)))
    ink = drawing(9).convert("RGBA")
    ink.putalpha(Image.linear_gradient("L").resize(ink.size))
    clear = dataset.add_image(encoded(ink))
    clean(dataset, config)
    on_white = make_snapshot(dataset, config)
    assert {row.background for row in on_white.rows} == {""}
    on_blue = config.model_copy(update={"background": "#0000ff"})
    clean(dataset, on_blue)
    blue = make_snapshot(dataset, on_blue)
    assert {row.sha256: row.background for row in blue.rows if row.background} == {clear: "#0000ff"}
    assert blue.digest != on_white.digest
    assert load_snapshot(dataset.store, blue.digest) == blue
    clean(dataset, config)
    assert make_snapshot(dataset, config) == on_white
