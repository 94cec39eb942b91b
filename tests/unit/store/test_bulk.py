"""Writing many rows at once, as they would be written one by one."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import bindparam, select, update

from sdlora.store.bulk import execute_many, insert_or_ignore, insert_or_update
from sdlora.store.image_store import ImageStore
from sdlora.store.tables.datasets import DatasetTable
from sdlora.store.tables.images import ImageTable
from sdlora.store.tables.versions import SnapshotImageTable, SnapshotTable


def _rows(count: int) -> list[dict[str, object]]:
    return [{"sha256": f"{number:064x}", "byte_size": number} for number in range(count)]


def test_rows_are_written_with_their_defaults(store: ImageStore) -> None:
    before = datetime.now(UTC)
    with store.write() as session:
        insert_or_ignore(session, ImageTable, _rows(3))
        insert_or_ignore(session, ImageTable, _rows(4))
    with store.read() as session:
        found = session.scalars(select(ImageTable).order_by(ImageTable.id)).all()
        assert [image.byte_size for image in found] == [0, 1, 2, 3]
        assert all(before <= image.collected_at <= datetime.now(UTC) for image in found)


def test_values_are_converted_as_their_columns_demand(store: ImageStore) -> None:
    collected_at = datetime(2020, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
    with store.write() as session:
        insert_or_ignore(session, ImageTable, [{**_rows(1)[0], "collected_at": collected_at}])
        insert_or_ignore(session, DatasetTable, [{"name": "icons"}])
        snapshot = {"dataset_id": 1, "digest": "a" * 64, "train_count": 1, "held_out_count": 0}
        insert_or_ignore(session, SnapshotTable, [snapshot])
        row = {"snapshot_id": 1, "image_id": 1, "split": "train", "captions": ["one", "deux é"]}
        insert_or_ignore(session, SnapshotImageTable, [row])
    with store.read() as session:
        assert session.scalars(select(ImageTable.collected_at)).one() == collected_at
        assert session.scalars(select(SnapshotImageTable.captions)).one() == ["one", "deux é"]


def test_of_two_rows_with_the_same_keys_the_last_counts(store: ImageStore) -> None:
    with store.write() as session:
        insert_or_update(session, ImageTable, _rows(2), keys=("sha256",))
        changed = [{**row, "byte_size": size} for row in _rows(2) for size in (8, 9)]
        insert_or_update(session, ImageTable, changed, keys=("sha256",))
    with store.read() as session:
        assert session.scalars(select(ImageTable.byte_size)).all() == [9, 9]


def test_an_update_changes_the_named_rows_alone(store: ImageStore) -> None:
    table = ImageTable.__table__
    statement = update(table).where(table.c.id == bindparam("image")).values(byte_size=bindparam("size"))
    with store.write() as session:
        insert_or_ignore(session, ImageTable, _rows(3))
        execute_many(session, statement, [{"image": 1, "size": 8}, {"image": 3, "size": 9}])
        execute_many(session, statement, [])
    with store.read() as session:
        assert session.scalars(select(ImageTable.byte_size).order_by(ImageTable.id)).all() == [8, 1, 9]
