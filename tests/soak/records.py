"""Records of the state folder, read by SQL and not by sdlora's own functions."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Engine, NullPool, create_engine, inspect

DATABASES = {"images": "images.db", "mlflow": "mlflow/mlflow.db", "prefect": "prefect/prefect.db"}
_LATE_TABLES = {"images": "starts", "mlflow": "registered_model_aliases", "prefect": "flow_run"}
"""Tables without which a database is still being made."""

_POSTGRES: dict[Path, Engine] = {}
"""PostgreSQL databases of images by state folder; a folder that is not here has a file of SQLite."""


def use_postgres(home: Path, address: str) -> None:
    """Read the images of a state folder from PostgreSQL."""
    _POSTGRES[home] = create_engine(address, poolclass=NullPool)


def _rows_of_postgres(engine: Engine, statement: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        if not inspect(connection).has_table(_LATE_TABLES["images"]):
            return []
        found = connection.exec_driver_sql(statement.replace("?", "%s"), parameters)
        return [tuple(row) for row in found]


def rows(home: Path, database: str, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Read rows of one of `DATABASES`; none if it is not there yet, or is being made."""
    if database == "images" and home in _POSTGRES:
        return _rows_of_postgres(_POSTGRES[home], statement, parameters)
    path = home / DATABASES[database]
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (_LATE_TABLES[database],)).fetchone():
            return []
        return connection.execute(statement, parameters).fetchall()


def integrity(home: Path, database: str) -> str:
    """Return `ok`, or what SQLite finds wrong; PostgreSQL has no such check."""
    if database == "images" and home in _POSTGRES:
        return "ok"
    found = rows(home, database, "PRAGMA integrity_check")
    return "; ".join(str(row[0]) for row in found) or "ok"


class Member(NamedTuple):
    sha256: str
    verdict: str | None
    reason: str | None
    split: str | None


def files_of(home: Path, style: str) -> dict[str, Member]:
    """Return the member behind each recorded file of the style's sources."""
    found = rows(
        home,
        "images",
        "SELECT files.path, images.sha256, members.verdict, members.reason, members.split FROM files "
        "JOIN sources ON sources.id = files.source_id JOIN datasets ON datasets.id = sources.dataset_id "
        "JOIN members ON members.id = files.member_id JOIN images ON images.id = members.image_id "
        "WHERE datasets.name = ? AND members.removed_at IS NULL",
        style,
    )
    return {path: Member(*rest) for path, *rest in found}


def members_of(home: Path, style: str) -> dict[str, Member]:
    """Return the members of the style's dataset by SHA-256."""
    found = rows(
        home,
        "images",
        "SELECT images.sha256, members.verdict, members.reason, members.split FROM members "
        "JOIN datasets ON datasets.id = members.dataset_id JOIN images ON images.id = members.image_id "
        "WHERE datasets.name = ? AND members.removed_at IS NULL",
        style,
    )
    return {row[0]: Member(*row) for row in found}


def snapshot_of(home: Path, style: str) -> dict[str, str]:
    """Return the side of each image in the newest snapshot of the style's dataset."""
    found = rows(
        home,
        "images",
        "SELECT images.sha256, rows.split FROM snapshot_images AS rows JOIN images ON images.id = rows.image_id "
        "WHERE rows.snapshot_id = (SELECT max(snapshots.id) FROM snapshots "
        "JOIN datasets ON datasets.id = snapshots.dataset_id WHERE datasets.name = ?)",
        style,
    )
    return dict(found)


class Entry(NamedTuple):
    number: int
    kind: str
    version: int
    from_version: int | None
    to_version: int | None
    who: str
    run_digest: str | None


def history_of(home: Path, style: str) -> list[Entry]:
    found = rows(
        home,
        "images",
        "SELECT number, kind, version, from_version, to_version, who, run_digest FROM champion_history "
        "WHERE style = ? ORDER BY id",
        style,
    )
    return [Entry(*row) for row in found]


def waiting_version(history: list[Entry]) -> int | None:
    """Return the version that a person has to decide about: none came after it, and the champion stayed."""
    for entry in reversed(history):
        if entry.kind == "waiting":
            return entry.version
        if entry.kind in ("rejected", "promoted", "first champion") or entry.from_version != entry.to_version:
            return None
    return None


class Ticket(NamedTuple):
    id: int
    run_digest: str | None
    state: str
    reason: str | None
    flow_run_id: str | None


def tickets_of(home: Path, style: str) -> list[Ticket]:
    found = rows(
        home,
        "images",
        "SELECT id, run_digest, state, reason, flow_run_id FROM tickets "
        "WHERE style = ? AND what = 'retrain' ORDER BY id",
        style,
    )
    return [Ticket(*row) for row in found]


class Start(NamedTuple):
    id: int
    key: str
    state: str
    flow_run_id: str | None
    outcome: str | None


def starts_of(home: Path, style: str) -> list[Start]:
    """Return the runs that new images started."""
    found = rows(
        home, "images", "SELECT id, key, state, flow_run_id, outcome FROM starts WHERE style = ? ORDER BY id", style
    )
    return [Start(*row) for row in found]


def flow_runs_with_key(home: Path, key: str) -> list[str]:
    """Return the ids of Prefect's flow runs with an idempotency key."""
    return [
        str(UUID(str(row[0])))
        for row in rows(home, "prefect", "SELECT id FROM flow_run WHERE idempotency_key = ?", key)
    ]


def versions_of(home: Path, style: str) -> dict[int, str]:
    """Return the adapter's digest of each version."""
    return dict(rows(home, "images", "SELECT number, adapter_digest FROM versions WHERE name = ?", style))


def alias_of(home: Path, style: str) -> int | None:
    """Return the version behind MLflow's alias `champion`."""
    found = rows(
        home, "mlflow", "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = 'champion'", style
    )
    return int(found[0][0]) if found else None


def mlflow_versions_of(home: Path, style: str) -> set[int]:
    return {int(row[0]) for row in rows(home, "mlflow", "SELECT version FROM model_versions WHERE name = ?", style)}


def trainings(home: Path) -> dict[str, int]:
    """Return the number of MLflow's runs of each training, by run digest."""
    statement = "SELECT value, count(DISTINCT run_uuid) FROM tags WHERE key = 'run_digest' GROUP BY value"
    return dict(rows(home, "mlflow", statement))
