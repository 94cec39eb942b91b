"""Cost of one image in the image database: rows, bytes and time, by table.

    python benchmarks/store_size.py [--images 20000] [--database-url postgresql://user@host/empty]

A new store is filled with synthetic images as collecting and cleaning record them, without any bytes or pixels. Each
has a file, a caption, a fingerprint, the result of every check and a row of one snapshot. The sizes are divided by the
number of images. PostgreSQL reports every table with its indexes, SQLite the file.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sqlalchemy import func, select, text

from sdlora.data.check_list import list_checks
from sdlora.data.config import DataConfig
from sdlora.data.duplicates.fingerprint import HASH_COUNT, THUMBNAIL_SIDE_PX, VERSION
from sdlora.data.verdicts import rules_digest
from sdlora.store.database import Database, open_database
from sdlora.store.tables import (
    Base,
    CaptionTable,
    CheckTable,
    FileTable,
    FingerprintTable,
    ImageTable,
    SnapshotImageTable,
    SnapshotTable,
    SourceTable,
    utc_now,
)

IMAGES_PER_TRANSACTION = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--database-url")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.db"
        database = open_database(options.database_url or file)
        empty = file.stat().st_size if file.exists() else 0
        begun = time.perf_counter()
        for start in range(0, options.images, IMAGES_PER_TRANSACTION):
            fill(database, range(start, min(start + IMAGES_PER_TRANSACTION, options.images)))
        seconds = time.perf_counter() - begun
        print(f"{options.images} images in {seconds:.1f} s, {options.images / seconds:.0f} a second, one writer")
        for table, rows, size in sizes(database):
            print(
                f"{table:<18}{rows / options.images:>8.2f} rows an image {size / options.images:>9.0f} bytes an image"
            )
        if database.engine.dialect.name == "sqlite":
            with database.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            print(f"file: {(file.stat().st_size - empty) / options.images:.0f} bytes an image, indexes included")
        database.close()


def fill(database: Database, numbers: range) -> None:
    """Write one portion in one transaction, as collecting and cleaning do."""
    dice = np.random.default_rng(numbers.start)
    shas = [hashlib.sha256(str(number).encode()).hexdigest() for number in numbers]
    ids = [number + 1 for number in numbers]
    rules, now = rules_digest(DataConfig()), utc_now()
    with database.write() as session:
        if numbers.start == 0:
            session.add(SourceTable(key="0" * 64, name="photographs"))
            session.add(SnapshotTable(digest="0" * 64, train_count=0, held_out_count=0))
            session.flush()
        rows: dict[type[Base], list[dict[str, object]]] = {
            FingerprintTable: [
                {
                    "id": one,
                    "pixels_sha256": sha256[::-1],
                    "version": VERSION,
                    "hashes": dice.bytes(8 * HASH_COUNT),
                    "aspect": 1.5,
                    "thumbnail": dice.bytes(THUMBNAIL_SIDE_PX * THUMBNAIL_SIDE_PX * 3),
                }
                for one, sha256 in zip(ids, shas, strict=True)
            ],
            ImageTable: [
                {
                    "id": one,
                    "sha256": sha256,
                    "byte_size": 300_000,
                    "collected_at": now,
                    "format": "JPEG",
                    "width": 1536,
                    "height": 1024,
                    "fingerprint_id": one,
                    "verdict": "accepted",
                    "reason": "passed all checks",
                    "rules": rules,
                    "split": "train",
                    "licence": "CC-BY-4.0",
                }
                for one, sha256 in zip(ids, shas, strict=True)
            ],
            FileTable: [
                {
                    "id": one,
                    "source_id": 1,
                    "path": f"2026/{one % 365:03d}/{sha256[:12]}.jpg",
                    "image_id": one,
                    "byte_size": 300_000,
                    "stamp": "300000 1764000000000000000",
                }
                for one, sha256 in zip(ids, shas, strict=True)
            ],
            CaptionTable: [
                {"image_id": one, "source_id": 1, "position": 0, "origin": "metadata", "text": "a street at night " * 4}
                for one in ids
            ],
            CheckTable: list(_rulings(ids)),
            SnapshotImageTable: [
                {"snapshot_id": 1, "image_id": one, "split": "train", "captions": ["a street at night " * 4]}
                for one in ids
            ],
        }
        for table, listed in rows.items():
            session.execute(table.__table__.insert(), listed)


def _rulings(ids: list[int]) -> Iterator[dict[str, object]]:
    names = [(check.name, check.version) for check in list_checks(DataConfig())]
    for one in ids:
        for name, version in names:
            yield {
                "image_id": one,
                "name": name,
                "version": version,
                "parameters": "0123456789abcdef",
                "score": one / 7,
                "verdict": "accepted",
                "reason": "",
                "checked_at": utc_now(),
            }


def sizes(database: Database) -> Iterator[tuple[str, int, int]]:
    """Yield (table, rows, bytes with indexes). SQLite does not report the bytes of a table; they are 0."""
    with database.read() as session:
        for table in Base.metadata.sorted_tables:
            rows = session.scalar(select(func.count()).select_from(table)) or 0
            size = 0
            if database.engine.dialect.name == "postgresql":
                size = session.scalar(text("SELECT pg_total_relation_size(:name)"), {"name": table.name})
            if rows > 1:
                yield table.name, rows, size


if __name__ == "__main__":
    main()
