"""SQLite files: structure, and the second copy of columns in their indexes.

Captions, verdicts and digests are in a table and in an index. A flipped bit in one of them makes the two differ, so no
further digest of these columns is needed. PostgreSQL keeps checksums of its pages itself.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sdlora.core.progress import OnProgress
from sdlora.integrity.damage import Damage
from sdlora.store.sqlite import connect_read_only


def verify_database(path: Path, what: str, remedy: str, on_progress: OnProgress) -> list[Damage]:
    """Read a SQLite file and compare its tables with their indexes; an absent file is not damaged.

    Args:
        on_progress: called with "read databases".
    """
    if not path.is_file():
        return []
    problem = integrity_problem(path, "integrity_check(3)")
    on_progress("read databases", 1, 1)
    return [Damage("database", f"{what} ({problem})", str(path), "damaged", remedy)] if problem else []


def integrity_problem(path: Path, check: str) -> str | None:
    """Run a check of SQLite: "quick_check" for the structure, "integrity_check" also for the indexes."""
    try:
        connection = connect_read_only(path)
        try:
            answers = [str(row[0]) for row in connection.execute(f"PRAGMA {check}")]
        finally:
            connection.close()
    except sqlite3.Error as error:
        return f"cannot be read: {error}"
    return None if answers == ["ok"] else "; ".join(answers)
