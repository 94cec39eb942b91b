"""Bulk execution of one statement for many rows, with little overhead over the database driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeVar, cast

from sqlalchemy import Dialect, Insert, Update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.schema import CallableColumnDefault

from sdlora.store.tables.base import Base

T = TypeVar("T")

ROWS_PER_STATEMENT = 500
"""Rows per statement; SQLite's limit is 32,766 bound values."""

Row = Mapping[str, Any]


def execute_many(session: Session, statement: Insert | Update, rows: Sequence[Row]) -> None:
    """Run a statement once for every row; column defaults are computed once for all rows.

    SQLAlchemy's `execute` processes every value of every row, which takes three times as long as SQLite's write. Here
    SQLAlchemy compiles the statement, and the driver receives the rows.

    Args:
        statement: statement on tables, not on classes; its bound names are the names of the rows.
        rows: rows with the same names.
    """
    if not rows:
        return
    connection = session.connection()
    dialect = connection.dialect
    columns = list(rows[0]) if isinstance(statement, Insert) else None
    compiled = statement.compile(dialect=dialect, column_keys=columns, for_executemany=True)
    assert isinstance(compiled, SQLCompiler)
    converters = _converters(compiled, dialect)
    defaults = {}
    for column in compiled.insert_prefetch:
        assert isinstance(column.default, CallableColumnDefault)  # such as the time; the tables have no other defaults
        value = column.default.arg(cast(Any, None))  # the defaults do not use the context
        defaults[column.key] = converters[column.key](value) if column.key in converters else value
    converted = [name for name in rows[0] if name in converters]
    complete_rows = rows
    if defaults or converted:
        complete_rows = [
            {**row, **defaults, **{name: converters[name](row[name]) for name in converted}} for row in rows
        ]
    if compiled.positional:
        names = compiled.positiontup or []
        values_of = itemgetter(*names) if len(names) > 1 else lambda row: (row[names[0]],)
        connection.exec_driver_sql(compiled.string, [values_of(row) for row in complete_rows])
    else:
        connection.exec_driver_sql(compiled.string, [dict(row) for row in complete_rows])


def _converters(compiled: SQLCompiler, dialect: Dialect) -> dict[str, Callable[[Any], Any]]:
    """Return the functions that convert values for the driver, by bound name; most types need no conversion."""
    processors = {
        name: bound.type.dialect_impl(dialect).bind_processor(dialect) for name, bound in compiled.binds.items()
    }
    return {name: convert for name, convert in processors.items() if convert is not None}


def insert_or_ignore(session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, and skip rows whose unique key exists."""
    execute_many(session, dialect_of(session).insert(table.__table__).on_conflict_do_nothing(), rows)


def insert_or_update(
    session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]], keys: Sequence[str]
) -> None:
    """Insert rows, and update rows whose unique `keys` exist. Of rows with the same keys the last one counts."""
    if rows:
        # PostgreSQL refuses a statement that names the same key twice.
        unique_rows = {tuple(row[key] for key in keys): row for row in rows}
        statement = dialect_of(session).insert(table.__table__)
        new_values = {name: statement.excluded[name] for name in rows[0] if name not in keys}
        statement = statement.on_conflict_do_update(index_elements=list(keys), set_=new_values)
        execute_many(session, statement, list(unique_rows.values()))


def chunks(items: Sequence[T], size: int = ROWS_PER_STATEMENT) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def dialect_of(session: Session) -> Any:
    """Return the dialect's module, because SQLAlchemy's common `insert` lacks ON CONFLICT."""
    return postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
