"""Stores of released versions: their schema is kept as SQL, and opening one brings it to the newest."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from sdlora.store import database
from sdlora.store.image_store import ImageStore
from sdlora.store.tables.base import Base

RELEASED = sorted(Path(__file__).parent.glob("schema_*.sql"))


def schema(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY sql").fetchall()
    return [" ".join(sql.split()) for (sql,) in rows]


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: path.stem)
def test_a_store_of_a_released_version_opens_with_its_rows_and_the_newest_tables(
    released: Path, tmp_path: Path
) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "images.db")) as connection, connection:
        connection.executescript(released.read_text())
        connection.execute("INSERT INTO images VALUES (1, ?, 5, '2026-11-30 03:00:00')", ["ab" * 32])
        connection.execute("INSERT INTO datasets VALUES (1, 'ink', '2026-11-30 03:00:00', NULL)")
    with ImageStore.open(tmp_path) as store:
        assert store.existing_dataset("ink").name == "ink"
        with store.database.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
            assert connection.exec_driver_sql("SELECT sha256 FROM images").scalars().all() == ["ab" * 32]


def test_the_first_revision_is_that_of_the_first_release(tmp_path: Path) -> None:
    """A released revision never changes: stores have it already, and only a further revision reaches them."""
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    first = ScriptDirectory.from_config(config).get_bases()
    with contextlib.closing(sqlite3.connect(tmp_path / "released.db")) as connection, connection:
        connection.executescript((Path(__file__).parent / "schema_0.1.0.sql").read_text())
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(first[0],)]
    if first == [database.SCHEMA_REVISION]:
        ImageStore.open(tmp_path).close()
        assert schema(tmp_path / "images.db") == schema(tmp_path / "released.db")
