"""Check of a whole state folder against all recorded digests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from sdlora.core.progress import OnProgress
from sdlora.integrity.adapters import RUN_DIGITS, AdapterFolder, adapter_copies, adapter_folders, evidence_copies
from sdlora.integrity.bases import base_copies
from sdlora.integrity.caches import cache_copies
from sdlora.integrity.copies import Copy, verify_copies
from sdlora.integrity.damage import Damage
from sdlora.integrity.database import verify_database
from sdlora.integrity.images import verify_images
from sdlora.integrity.runs import checkpoint_copies, duel_copies, picture_copies
from sdlora.integrity.snapshots import FindRows, verify_snapshots
from sdlora.store.image_store import ImageStore
from sdlora.store.overrides import tombstones
from sdlora.store.tables.versions import ChampionHistoryTable

_RESTORE_IMAGES = "Restore a backup of the database, or move it away and collect the sources again."
_RESTORE_RECORDS = "Restore a backup of the database; `sdlora versions` needs only the image database."


@dataclass(frozen=True)
class Registered:
    """Copies in the registry: adapters of all versions, and the logged rows of snapshots."""

    folders: Sequence[AdapterFolder] = ()
    find_rows: FindRows = lambda digest: None


def verify(
    home: Path, store: ImageStore | None, registered: Registered, on_progress: OnProgress, *, repair: bool = False
) -> list[Damage]:
    """Read everything that has a digest, and report what is damaged or missing.

    Args:
        home: the state folder.
        store: its image store; None if there is none.
        registered: copies in the registry.
        on_progress: called with "read databases", "read snapshots", "read images" and "read files (MB)".
        repair: restore from copies with the right digest, and delete damaged cache entries. Nothing else is changed.

    Raises:
        StorageError: the store cannot be reached, or a repair fails.
    """
    damages = verify_database(home / "images.db", "image database", _RESTORE_IMAGES, on_progress)
    damages += verify_database(home / "mlflow" / "mlflow.db", "MLflow's database", _RESTORE_RECORDS, on_progress)
    if store is not None:
        damages += verify_snapshots(store, registered.find_rows, on_progress, repair=repair)
        damages += verify_images(store, on_progress)
    damages += verify_copies(_copies(home, store, registered), on_progress, repair=repair)
    # A run that goes on deletes old checkpoints.
    return [d for d in damages if not (d.kind == "checkpoint" and not Path(d.where).parent.exists())]


def _copies(home: Path, store: ImageStore | None, registered: Registered) -> Iterator[Copy]:
    folders = [*adapter_folders(home), *registered.folders]
    decisions: dict[str, set[str]] = {}
    duels: dict[str, set[str]] = {}
    purged: dict[str, str] = {}
    if store is not None:
        with store.read() as session:
            purged = tombstones(session)
            table = ChampionHistoryTable
            for run, duel, decision in session.execute(
                select(table.run_digest, table.duel_digest, table.decision_digest)
            ):
                if run and decision:
                    decisions.setdefault(run[:RUN_DIGITS], set()).add(decision)
                if run and duel:
                    duels.setdefault(run[:RUN_DIGITS], set()).add(duel)
    yield from base_copies(home, set(_known_bases(home)))
    yield from cache_copies(home)
    yield from adapter_copies(folders)
    yield from evidence_copies(folders, decisions)
    yield from duel_copies(home, duels)
    yield from picture_copies(home, purged)
    yield from checkpoint_copies(home)


def _known_bases(home: Path) -> Iterator[str]:
    """Read the digests of the base models of all runs."""
    for path in (home / "runs").glob("*/*/config.json"):
        try:
            yield str(json.loads(path.read_text())["base_digest"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
