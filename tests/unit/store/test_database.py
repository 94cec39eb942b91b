from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from sdlora.core.errors import StorageError
from sdlora.store import database
from sdlora.store.image_store import ImageStore
from sdlora.store.tables.base import Base
from tests.stores import opened_dataset


def _open_and_add(home: Path, start: object, content: bytes) -> None:
    start.wait()
    with opened_dataset(home) as dataset:
        dataset.add_image(content)


def test_the_baseline_makes_the_tables_of_the_code(tmp_path: Path) -> None:
    opened = database.open_database(tmp_path / "images.db")
    with opened.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"user_module_prefix": ""})
        assert compare_metadata(context, Base.metadata) == []
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    opened.close()


def test_the_newest_revision_is_the_one_that_the_code_expects() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == database.SCHEMA_REVISION


def _seconds_of(work: Callable[[], None]) -> float:
    """Measure the time of a processor, which other processes do not take."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def test_opening_an_up_to_date_store_is_quick_and_needs_no_alembic(tmp_path: Path) -> None:
    made, opened = (
        min(_seconds_of(lambda home=home: ImageStore.open(home).close()) for home in homes)
        for homes in ([tmp_path / str(number) for number in range(5)], [tmp_path / "0"] * 5)
    )
    assert opened < made / 4
    code = f"""
import sys
from sdlora.store.image_store import ImageStore
ImageStore.open({str(tmp_path / "0")!r})
print("alembic" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_two_processes_may_create_the_store_at_the_same_moment(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Event()
    contents = (b"first", b"second")
    workers = [spawn.Process(target=_open_and_add, args=(tmp_path, start, content)) for content in contents]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    with opened_dataset(tmp_path) as dataset:
        assert {dataset.store.read_bytes(image.sha256) for image in dataset.images()} == set(contents)


def test_a_file_that_is_no_database_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "images.db").write_bytes(b"this is no database " * 100)
    with pytest.raises(StorageError, match=r"(?s)images\.db.*not a database.*backup"):
        ImageStore.open(tmp_path)


def test_a_store_of_a_newer_version_is_refused_with_the_remedy(tmp_path: Path) -> None:
    ImageStore.open(tmp_path).close()
    with sqlite3.connect(tmp_path / "images.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageError, match=r"newer version of sdlora.*Update"):
        ImageStore.open(tmp_path)


@pytest.mark.parametrize("revision", ["0001", "0008"])
def test_a_store_from_before_the_first_release_is_refused_in_one_sentence_and_not_changed(
    tmp_path: Path, revision: str
) -> None:
    path = tmp_path / "images.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", [revision])
    with pytest.raises(StorageError) as caught:
        ImageStore.open(tmp_path)
    said = str(caught.value).removeprefix(f"{path} ")
    assert f"has schema {revision}, from before the first release" in said
    assert "new state folder (--home)" in said
    assert said.count(".") == 1 and said.endswith(".")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("alembic_version",)]
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(revision,)]


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file")
    with pytest.raises(StorageError, match="occupied"):
        ImageStore.open(tmp_path / "occupied")
