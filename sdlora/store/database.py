"""The database of images: SQLite in a file or PostgreSQL on a server, at the newest schema, with errors that help.

Both give the same two promises. A reader sees one state, whatever others write meanwhile. A writer is alone from its
first statement on and sees all that earlier writers recorded: what it compares with is complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError
from sqlalchemy.orm import Session

from sdlora.core.errors import StorageError
from sdlora.store import postgresql, sqlite

SCHEMA_REVISION = "r0001"
"""The newest migration. Kept here so that opening an up-to-date database need not import Alembic."""
_DEVELOPMENT_REVISION = re.compile("000[1-8]")
"""Schemas from before the first release; those of releases begin with an r."""

_MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(frozen=True)
class Database:
    """An open database. `name` is what errors call it; it holds no password."""

    engine: Engine
    name: str

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one state of the database, whatever others write meanwhile."""
        with self.errors(), Session(self._reader) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that writes alone from the start; all of it is recorded at the end, or nothing.

        Raises:
            StorageError: nothing can be written, or another process keeps the lock.
        """
        with self.errors(), Session(self._writer) as session, session.begin():
            yield session

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what the disk, SQLite or PostgreSQL says into a StorageError with the remedy."""
        with _storage_errors(self.engine.url, self.name):
            yield

    def close(self) -> None:
        self.engine.dispose()

    @property
    def _reader(self) -> Engine:
        return self.engine.execution_options(**_dialect(self.engine.url).READER)

    @property
    def _writer(self) -> Engine:
        return self.engine.execution_options(**_dialect(self.engine.url).WRITER)


def open_database(location: Path | str) -> Database:
    """Open or create the database and bring it to the newest schema; safe when several processes do so at once.

    Args:
        place: a file for SQLite, or an address such as `postgresql://user@host/name`.

    Raises:
        StorageError: it cannot be reached or written, is no database, or was made by a newer sdlora or by one from
            before the first release.
    """
    url, name = _address(location)
    with _storage_errors(url, name):
        if isinstance(location, Path):
            location.parent.mkdir(parents=True, exist_ok=True)
        database = Database(_dialect(url).create(url), name)
        try:
            with database._reader.connect() as connection:
                revision = _revision(connection)
            if revision != SCHEMA_REVISION:
                _refuse_development(revision, name)
                _migrate(database)
        except BaseException:
            database.close()
            raise
    return database


def _address(location: Path | str) -> tuple[URL, str]:
    if isinstance(location, Path):
        return URL.create("sqlite", database=str(location)), str(location)
    try:
        url = make_url(location)
    except ArgumentError:  # its own message would repeat the address, password and all
        raise StorageError(
            "SDLORA_DATABASE_URL is no address of a database; expected postgresql://user:password@host:5432/name."
        ) from None
    if url.get_backend_name() not in ("postgresql", "sqlite"):
        raise StorageError(
            f"SDLORA_DATABASE_URL names a {url.get_backend_name()} database; expected postgresql://... or sqlite:///..."
        )
    return url, url.render_as_string(hide_password=True)


def _dialect(url: URL) -> type[sqlite.Sqlite] | type[postgresql.Postgresql]:
    return postgresql.Postgresql if url.get_backend_name() == "postgresql" else sqlite.Sqlite


@contextmanager
def _storage_errors(url: URL, name: str) -> Iterator[None]:
    dialect = _dialect(url)
    try:
        yield
    except OSError as error:
        raise StorageError(f"{name} cannot be written: {error.strerror or error}. {dialect.FREE_SPACE}") from error
    except DatabaseError as error:
        remedy = dialect.remedy(error)
        if remedy is None:
            raise
        message = " ".join(str(error.orig).split())
        raise StorageError(f"{name}: {message}. {remedy}") from error


def _revision(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def _refuse_development(revision: str | None, name: str) -> None:
    if revision and _DEVELOPMENT_REVISION.fullmatch(revision):
        raise StorageError(
            f"{name} is of a development version from before the first release (schema {revision}) and cannot be "
            "migrated: choose a new state folder (--home) or a new database (SDLORA_DATABASE_URL) and collect the "
            "sources into it again; the old one was not changed."
        )


def _migrate(database: Database) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    with database._writer.begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")  # nothing to do if another process was quicker
        except CommandError as error:
            raise StorageError(
                f"{database.name} was written by a newer version of sdlora. Update sdlora, or choose another database."
            ) from error
