"""Cost of one image in the image database: rows, bytes and time, by table.

    python benchmarks/store_size.py [--images 20000] [--datasets 1] [--database-url postgresql://user@host/empty]

A new store is filled with synthetic images as collecting and cleaning record them, without any bytes or pixels. Each
has a fingerprint and a score of every check on pixels. In each dataset, it has a file, a caption and a row of one
snapshot; every tenth one is rejected. The sizes are divided by the number of images. PostgreSQL reports every table
with its indexes, SQLite the file.
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

from sdlora.data.checks import CHECKS
from sdlora.data.config import DataConfig
from sdlora.data.duplicates.fingerprint import HASH_COUNT, THUMBNAIL_SIDE_PX, VERSION
from sdlora.data.verdicts import rules_digest
from sdlora.store.database import Database, open_database
from sdlora.store.tables.base import Base, utc_now
from sdlora.store.tables.datasets import CaptionTable, DatasetTable, FileTable, MemberTable, RulingTable, SourceTable
from sdlora.store.tables.images import DecodingTable, FingerprintTable, ImageTable, ScoreTable
from sdlora.store.tables.versions import SnapshotImageTable, SnapshotTable

IMAGES_PER_TRANSACTION = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--datasets", type=int, default=1, help="datasets that each image is in")
    parser.add_argument("--database-url")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.db"
        database = open_database(options.database_url or file)
        empty = file.stat().st_size if file.exists() else 0
        begun = time.perf_counter()
        for start in range(0, options.images, IMAGES_PER_TRANSACTION):
            fill(database, range(start, min(start + IMAGES_PER_TRANSACTION, options.images)), options.datasets)
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


def fill(database: Database, numbers: range, datasets: int, of_each_image: int | None = None) -> None:
    """Write one portion in one transaction, as collecting and cleaning do.

    Args:
        database: the database; a portion that begins with image 0 makes the datasets.
        numbers: numbers of the images of the portion.
        datasets: number of datasets.
        of_each_image: number of datasets that an image is in, one after the other; by default all.
    """
    of_each_image = of_each_image or datasets
    dice = np.random.default_rng(numbers.start)
    shas = {number + 1: hashlib.sha256(str(number).encode()).hexdigest() for number in numbers}
    rows: dict[type[Base], list[dict[str, object]]] = {
        FingerprintTable: [
            {
                "id": image_id,
                "pixels_sha256": sha256[::-1],
                "version": VERSION,
                "hashes": dice.bytes(8 * HASH_COUNT),
                "aspect": 1.5,
                "thumbnail": dice.bytes(THUMBNAIL_SIDE_PX * THUMBNAIL_SIDE_PX * 3),
            }
            for image_id, sha256 in shas.items()
        ],
        ImageTable: [
            {"id": image_id, "sha256": sha256, "byte_size": 300_000, "collected_at": utc_now()}
            for image_id, sha256 in shas.items()
        ],
        DecodingTable: [
            {
                "id": image_id,
                "image_id": image_id,
                "background": "",
                "decoded_as": "2",
                "format": "JPEG",
                "width": 1536,
                "height": 1024,
                "fingerprint_id": image_id,
            }
            for image_id in shas
        ],
        ScoreTable: [
            {
                "decoding_id": image_id,
                "name": check.name,
                "version": check.version,
                "parameters": "",
                "score": image_id / 7,
            }
            for image_id in shas
            for check in CHECKS
        ],
    }
    with database.write() as session:
        if numbers.start == 0:
            for dataset_id in range(1, datasets + 1):
                session.add(DatasetTable(id=dataset_id, name=f"style-{dataset_id}"))
                session.flush()
                session.add(SourceTable(id=dataset_id, dataset_id=dataset_id, key="0" * 64, name="photographs"))
                session.add(
                    SnapshotTable(
                        id=dataset_id, dataset_id=dataset_id, digest="0" * 64, train_count=0, held_out_count=0
                    )
                )
            session.flush()
        for table, listed in rows.items():
            session.execute(table.__table__.insert(), listed)
        for dataset_id in range(1, datasets + 1):
            members = {i: sha256 for i, sha256 in shas.items() if (dataset_id - i) % datasets < of_each_image}
            for table, listed in _of_dataset(members, dataset_id, datasets).items():
                if listed:  # an empty list would insert a row of defaults
                    session.execute(table.__table__.insert(), listed)


def _of_dataset(shas: dict[int, str], dataset_id: int, datasets: int) -> dict[type[Base], list[dict[str, object]]]:
    """Make the rows that each dataset has of its own."""
    ids = {image_id: image_id * datasets + dataset_id for image_id in shas}
    rules, now = rules_digest(DataConfig()), utc_now()
    verdicts = (
        {"verdict": "accepted", "rejected_by": None, "reason": "passed all 19 checks"},
        {"verdict": "rejected", "rejected_by": "blurry", "reason": "blurry: sharpness 0.21 of 1, less than 0.29"},
    )
    return {
        MemberTable: [
            {
                "id": member_id,
                "dataset_id": dataset_id,
                "image_id": image_id,
                "licence": "CC-BY-4.0",
                "added_at": now,
                "decoding_id": image_id,
                "rules": rules,
                "split": "train",
                **verdicts[image_id % 10 == 0],
            }
            for image_id, member_id in ids.items()
        ],
        RulingTable: [
            {"member_id": member_id, "name": "blurry", "version": 1, "score": 0.21, "reason": verdicts[1]["reason"]}
            for image_id, member_id in ids.items()
            if image_id % 10 == 0
        ],
        FileTable: [
            {
                "id": member_id,
                "source_id": dataset_id,
                "path": f"2026/{image_id % 365:03d}/{shas[image_id][:12]}.jpg",
                "member_id": member_id,
                "byte_size": 300_000,
                "stamp": "300000 1764000000000000000",
            }
            for image_id, member_id in ids.items()
        ],
        CaptionTable: [
            {
                "member_id": member_id,
                "source_id": dataset_id,
                "file_id": member_id,
                "position": 0,
                "origin": "metadata",
                "text": "a street at night " * 4,
            }
            for member_id in ids.values()
        ],
        SnapshotImageTable: [
            {
                "snapshot_id": dataset_id,
                "image_id": image_id,
                "split": "train",
                "captions": ["a street at night " * 4],
            }
            for image_id in ids
            if image_id % 10
        ],
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
