"""Database of images: SQLite in a file or PostgreSQL on a server, at the newest schema.

Both guarantee the same isolation. A reader sees one state of the database, unaffected by concurrent writers. A writer
holds the write lock from its first statement and sees everything that earlier writers committed.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError
from sqlalchemy.orm import Session

from sdlora.core.errors import StorageError
from sdlora.core.files import make_private_folder
from sdlora.store import postgresql, sqlite

SCHEMA_REVISION = "r0002"
"""Newest migration, repeated here so that opening an up-to-date database does not import Alembic."""
_DEVELOPMENT_REVISION = re.compile("000[1-8]")
"""Revisions from before the first release; revisions of releases begin with an r."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_POLL_SECONDS = 1.0
"""Time between two attempts to reach a server that is away."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Database:
    """Open database.

    A server that is away is waited for before a transaction, when nothing has happened yet. A transaction that loses
    its server is not repeated here, because only its caller knows whether it can be.

    Attributes:
        name: used in error messages; contains no password.
        patience_seconds: longest wait for a server that cannot be reached.
    """

    engine: Engine
    name: str
    patience_seconds: float = 0.0

    @contextmanager
    def read(self, *, waits: bool = True) -> Iterator[Session]:
        """Open a session that reads one state of the database, unaffected by concurrent writers.

        Args:
            waits: wait for a server that is away; otherwise its absence is an error at once.
        """
        patience_seconds = self.patience_seconds if waits else 0.0
        with self.errors(), self._connect(self._reader, patience_seconds) as connection, Session(connection) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a session that holds the write lock from the start; it is committed at the end or rolled back.

        Raises:
            StorageError: the database cannot be written or reached, or another process keeps the lock.
        """
        with (
            self.errors(),
            self._connect(self._writer, self.patience_seconds) as connection,
            Session(connection) as session,
            session.begin(),
        ):
            yield session

    def connect(self) -> Connection:
        """Open a connection that only reads; the caller closes it.

        Raises:
            StorageError: the database cannot be reached.
        """
        with self.errors():
            return self._connect(self._reader, self.patience_seconds)

    def _connect(self, engine: Engine, patience_seconds: float) -> Connection:
        dialect = _dialect(engine.url)
        return wait_for_server(engine.connect, dialect.is_away, self.name, patience_seconds)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Convert errors of the disk, SQLite or PostgreSQL to a StorageError with the remedy."""
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


def open_database(location: Path | str, patience_seconds: float = 0.0) -> Database:
    """Open or create the database and migrate it to the newest schema; safe for concurrent processes.

    Args:
        location: a file for SQLite, or a URL such as `postgresql://user@host/name`.
        patience_seconds: longest wait for a server that cannot be reached, now and before each transaction.

    Raises:
        StorageError: the database cannot be reached or written, the file is no database, or the schema is of a newer
            sdlora or from before the first release.
    """
    url, name = _address(location)
    with _storage_errors(url, name):
        if isinstance(location, Path):
            make_private_folder(location.parent)
        database = Database(_dialect(url).create(url), name, patience_seconds)
        try:
            with database._connect(database._reader, patience_seconds) as connection:
                revision = _revision(connection)
            if revision != SCHEMA_REVISION:
                _refuse_development(revision, name)
                _migrate(database)
        except BaseException:
            database.close()
            raise
    return database


def wait_for_server(
    connect: Callable[[], Connection], is_away: Callable[[DatabaseError], bool], name: str, patience_seconds: float
) -> Connection:
    """Connect; if the server is away, try again for `patience_seconds`.

    Raises:
        DatabaseError: the server stayed away, or refused.
    """
    deadline = time.monotonic() + patience_seconds
    warned = False
    while True:
        try:
            return connect()
        except DatabaseError as error:
            if not is_away(error) or time.monotonic() >= deadline:
                raise
            if not warned:
                _logger.warning("%s cannot be reached; waiting for up to %.0f s", name, patience_seconds)
            warned = True
        time.sleep(_POLL_SECONDS)


def _address(location: Path | str) -> tuple[URL, str]:
    if isinstance(location, Path):
        return URL.create("sqlite", database=str(location)), str(location)
    try:
        url = make_url(location)
    except ArgumentError:  # not chained: its message contains the URL with the password
        raise StorageError(
            "SDLORA_DATABASE_URL is not a database URL; expected postgresql://user:password@host:5432/name."
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
            f"{name} has schema {revision}, from before the first release, and cannot be migrated: choose a new state "
            "folder (--home) or a new database (SDLORA_DATABASE_URL) and collect the sources again; the old database "
            "was not changed."
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
            command.upgrade(config, "head")  # does nothing if another process has migrated meanwhile
        except CommandError as error:
            raise StorageError(
                f"{database.name} was written by a newer version of sdlora. Update sdlora, or choose another database."
            ) from error
