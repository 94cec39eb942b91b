from __future__ import annotations

import pytest

from sdlora.core.errors import DataError
from sdlora.store.dataset import Dataset
from sdlora.store.ids import image_ids
from sdlora.store.lineage import record_version
from sdlora.store.tables.versions import SnapshotImageTable, SnapshotTable
from tests.stores import both_places

pytestmark = both_places


def freeze(dataset: Dataset, digest: str, train: list[str], held_out: list[str]) -> None:
    with dataset.store.write() as session:
        ids = image_ids(session, [*train, *held_out])
        parent = session.query(SnapshotTable).order_by(SnapshotTable.id.desc()).first()
        made = SnapshotTable(
            dataset_id=dataset.id,
            digest=digest,
            parent_id=parent and parent.id,
            train_count=len(train),
            held_out_count=len(held_out),
        )
        session.add(made)
        session.flush()
        for side, shas in (("train", train), ("held_out", held_out)):
            for sha256 in shas:
                row = SnapshotImageTable(snapshot_id=made.id, image_id=ids[sha256], split=side, captions=["then"])
                session.add(row)


def learn(dataset: Dataset, name: str, number: int, adapter_digest: str, snapshot_digest: str) -> None:
    with dataset.store.write() as session:
        record_version(session, name, number, adapter_digest, snapshot_digest)


def test_lineage_leads_from_an_image_to_the_versions_that_learnt_from_it(dataset: Dataset) -> None:
    learnt, measured = dataset.add_image(b"one"), dataset.add_image(b"two")
    freeze(dataset, "a" * 64, [learnt], [measured])
    freeze(dataset, "b" * 64, [learnt], [measured])
    learn(dataset, "icons", 1, "1" * 64, "a" * 64)
    learn(dataset, "icons", 2, "2" * 64, "a" * 64)
    details = dataset.details(learnt)
    assert [(one.snapshot.digest[0], one.split, one.captions) for one in details.appearances] == [
        ("a", "train", ("then",)),
        ("b", "train", ("then",)),
    ]
    assert [version.label for version in details.trained_versions] == ["icons version 1", "icons version 2"]
    assert dataset.details(measured).trained_versions == ()


def test_lineage_leads_from_a_version_to_its_snapshot_and_its_parent(dataset: Dataset) -> None:
    images = [dataset.add_image(b"one"), dataset.add_image(b"two")]
    freeze(dataset, "a" * 64, images[:1], [])
    freeze(dataset, "b" * 64, images, [])
    learn(dataset, "icons", 1, "1" * 64, "b" * 64)
    newest, oldest = dataset.snapshots()
    assert (newest.digest[0], newest.parent, newest.train_count) == ("b", "a" * 64, 2)
    assert (oldest.parent, oldest.versions) == (None, ())
    assert [(one.number, one.adapter_digest[0]) for one in newest.versions] == [(1, "1")]
    assert dataset.snapshot("b" * 10) == newest


def test_to_record_a_version_again_changes_nothing(dataset: Dataset) -> None:
    freeze(dataset, "a" * 64, [dataset.add_image(b"one")], [])
    for _ in range(2):
        learn(dataset, "icons", 1, "1" * 64, "a" * 64)
    assert len(dataset.snapshot("aa").versions) == 1


@pytest.mark.parametrize("digits", ["", "c", "%"])
def test_digits_that_fit_no_snapshot_are_refused(dataset: Dataset, digits: str) -> None:
    freeze(dataset, "a" * 64, [dataset.add_image(b"one")], [])
    with pytest.raises(DataError, match="sdlora snapshot list"):
        dataset.snapshot(digits)


def test_a_version_of_an_unknown_snapshot_is_refused(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="not in this image database"):
        learn(dataset, "icons", 1, "1" * 64, "c" * 64)
