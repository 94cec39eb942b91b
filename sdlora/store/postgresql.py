"""PostgreSQL for stores shared by several machines; one advisory lock gives the same isolation as SQLite's file."""

from __future__ import annotations

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DataError, IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from sdlora.core.errors import StorageError

_WAIT_SECONDS = 60
_WRITE_LOCK = 7_310_594_115_003_117_921
"""Number of the advisory lock, the same for every sdlora on the database."""


class Postgresql:
    """Engine options and error remedies of PostgreSQL."""

    READER = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}  # noqa: RUF012  # only ever unpacked
    # READ COMMITTED, with the lock taken by the first statement: later statements see everything that earlier writers
    # committed. A stricter level would take its snapshot before the lock is granted.
    WRITER = {"isolation_level": "READ COMMITTED"}  # noqa: RUF012  # only ever unpacked
    AWAY = "Start the server, or correct SDLORA_DATABASE_URL; earlier records are intact."
    FREE_SPACE = "Give the server more space; earlier records are intact."

    @staticmethod
    def create(url: URL) -> Engine:
        try:
            engine = create_engine(
                url,
                connect_args={"connect_timeout": 10, "options": f"-c lock_timeout={_WAIT_SECONDS}s -c timezone=UTC"},
                pool_pre_ping=True,  # replaces connections that the server has closed
            )
        except ModuleNotFoundError as error:
            raise StorageError(
                "SDLORA_DATABASE_URL names a PostgreSQL server, but the driver is not installed. Run: "
                "pip install 'sdlora[server]'"
            ) from error
        event.listen(engine, "begin", _on_begin)
        return engine

    @classmethod
    def is_away(cls, error: SQLAlchemyError) -> bool:
        """Return True if the server cannot be reached, or starts or stops just now."""
        return cls.remedy(error) == cls.AWAY

    @classmethod
    def remedy(cls, error: SQLAlchemyError) -> str | None:
        """Return the remedy for an error; None if the error is a defect of sdlora."""
        message = str(getattr(error, "orig", error))
        if isinstance(error, IntegrityError | DataError):
            return None
        if "lock timeout" in message:
            return f"Another process has written for {_WAIT_SECONDS} seconds; end it and try again."
        if "permission denied" in message or "read-only" in message:
            return "Give the account of SDLORA_DATABASE_URL the right to create tables and to write there."
        if "password" in message or "authentication" in message or "does not exist" in message:
            return "Correct user, password and database name in SDLORA_DATABASE_URL."
        if isinstance(error, ProgrammingError):
            return None
        if isinstance(error, OperationalError):
            if "disk" in message or "space" in message:
                return cls.FREE_SPACE
            return cls.AWAY
        return None


def _on_begin(connection: Connection) -> None:
    if not connection.get_execution_options().get("postgresql_readonly"):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")
