"""Digests of the rows that a run of a style reads, on SQLite and PostgreSQL."""

from __future__ import annotations

import pytest

from sdlora.store.dataset import Dataset
from sdlora.store.image_store import ImageStore
from sdlora.store.inputs import dataset_digest, style_digest
from sdlora.store.lineage import record_version
from sdlora.store.selection import Selection
from sdlora.store.tables.versions import SnapshotTable
from tests.stores import both_places

pytestmark = both_places


def digest(store: ImageStore, name: str = "icons") -> str:
    with store.read() as session:
        return dataset_digest(session, name)


def fill(dataset: Dataset) -> list[str]:
    return [dataset.add_image(bytes([number]) * 50) for number in range(3)]


def test_what_is_recorded_in_another_dataset_changes_nothing(store: ImageStore) -> None:
    fill(store.dataset("icons"))
    before = digest(store)
    assert before != digest(store, "empty")
    store.dataset("others").add_image(b"x" * 50)
    assert digest(store) == before


@pytest.mark.parametrize("change", ["image", "caption", "decision", "undone", "stars", "takedown", "removal", "back"])
def test_each_record_of_a_person_or_a_source_changes_the_digest(store: ImageStore, change: str) -> None:
    dataset = store.dataset("icons")
    first, second, third = fill(dataset)
    dataset.decide(second, "rejected", "a logo", "ana")
    dataset.remove(Selection(ids=(third,)), "ana")
    before = digest(store)
    if change == "image":
        dataset.add_image(b"new" * 20)
    elif change == "caption":
        dataset.set_captions(first, ["another"])
    elif change == "decision":
        dataset.decide(first, "rejected", "a logo", "ana")
    elif change == "undone":
        dataset.undo_decision(second, "ana")
    elif change == "stars":
        store.rate(first, 5, "ana")
    elif change == "takedown":
        store.purge(first, "a takedown", "ana")
    elif change == "removal":
        dataset.remove(Selection(ids=(first,)), "ana")
    else:
        dataset.bring_back(Selection(ids=(third,)))
    assert digest(store) != before


def test_a_version_changes_the_digest_of_its_style_alone(store: ImageStore) -> None:
    dataset = store.dataset("icons")

    def digests() -> list[str]:
        with store.read() as session:
            return [style_digest(session, name) for name in ("a", "b")]

    before = digests()
    with store.write() as session:
        session.add(SnapshotTable(dataset_id=dataset.id, digest="d" * 64, train_count=3, held_out_count=0))
        session.flush()
        record_version(session, "a", 1, "f" * 64, "d" * 64)
    after = digests()
    assert after[0] != before[0] and after[1] == before[1]
