"""`ImageStore`: the image database as one object."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy.orm import Session

from sdlora.core.errors import DataError
from sdlora.store.blobs import BlobStore
from sdlora.store.curation import Purged, decide_by_person, purge_image, undo_decision
from sdlora.store.database import Database, open_database
from sdlora.store.details import DrawnDetails, ImageDetails, describe, image_details
from sdlora.store.generations import Generation, count_generations, list_generations
from sdlora.store.intake import SeenFile, insert_or_ignore, record_files, register_source, replace_edits
from sdlora.store.lineage import SnapshotRecord, find_snapshot, list_snapshots
from sdlora.store.location import StoreLocation
from sdlora.store.overrides import purged_reasons
from sdlora.store.queries import count_images, find_image, find_sha256, list_images, sample_blobs
from sdlora.store.ratings import rate, undo_rating
from sdlora.store.records import Caption, Counts, ImageRecord, Verdict
from sdlora.store.tables import GenerationTable


class ImageStore:
    """Images, captions, verdicts and snapshots in a database, and the bytes of the images.

    By default the store is in `home` (`images.db`, `blobs/`) and contains no path outside, so the folder can be
    moved. Several processes, on PostgreSQL several machines, may open the same store. Use the store as a context
    manager, or call `close()`.
    """

    def __init__(self, home: Path, database: Database, blobs: BlobStore) -> None:
        self.home = home
        self.blobs = blobs
        self.database = database

    @classmethod
    def open(cls, home: str | PathLike[str], location: StoreLocation | None = None) -> ImageStore:
        """Open the store of `home`; create or migrate it if needed.

        Args:
            home: the state folder, which also holds data computed from the images.
            location: location of database and bytes; by default from the environment, else in `home`.

        Raises:
            StorageError: the store cannot be reached or written, or the database is damaged or of a newer sdlora.
        """
        home = Path(home)
        location = location or StoreLocation.of_home(home)
        return cls(home, open_database(location.database), BlobStore(location.blobs))

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self) -> AbstractContextManager[Session]:
        """Open a session that reads one state of the database, unaffected by concurrent writers."""
        return self.database.read()

    def write(self) -> AbstractContextManager[Session]:
        """Open a session that holds the write lock from the start; it is committed at the end or rolled back.

        Raises:
            StorageError: the disk is full or not writable, or another process keeps the lock.
        """
        return self.database.write()

    def add_image(
        self, content: bytes, captions: Sequence[str] = (), *, source: str | None = None, licence: str | None = None
    ) -> str:
        """Add an image by its bytes and return its SHA-256. An image that is recorded only gains the captions.

        Raises:
            DataError: the image was purged.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        self.refuse_purged(sha256)
        self.blobs.put(content)
        with self.write() as session:
            source_id = register_source(session, "by-hand", "by-hand")
            recorded_captions = tuple(Caption(text, "metadata") for text in dict.fromkeys(captions)) or None
            seen = SeenFile(sha256, sha256, len(content), source=source, licence=licence, captions=recorded_captions)
            record_files(session, source_id, [seen])
        return sha256

    def refuse_purged(self, sha256: str) -> None:
        """Raise `DataError` if the image was taken down, because its bytes must not return."""
        with self.read() as session:
            reasons = purged_reasons(session, [sha256])
        if reasons:
            raise DataError(
                f"Image {sha256[:12]} was {reasons[sha256]}. Its bytes are gone for good, and it cannot be added again."
            )

    def read_bytes(self, sha256: str) -> bytes:
        """Read the bytes of an image and compare them with their digest.

        Raises:
            DataError: the bytes are missing or damaged, or the image was purged.
        """
        try:
            return self.blobs.get(sha256)
        except DataError:
            self.refuse_purged(sha256)  # its source cannot be collected again, as the other error says
            raise

    def images(
        self,
        verdict: Verdict | None = None,
        *,
        rejected_by: str | None = None,
        caption: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[ImageRecord]:
        """List images in the order of collection; see `sdlora.store.queries.list_images`."""
        with self.read() as session:
            return list_images(session, verdict, rejected_by, caption, limit, offset)

    def image(self, sha256: str) -> ImageRecord:
        """Find a collected image by its SHA-256 or the first digits.

        Raises:
            DataError: no image, or more than one, starts with these digits.
        """
        with self.read() as session:
            return find_image(session, sha256)

    def counts(self) -> Counts:
        """Count images by verdict."""
        with self.read() as session:
            return count_images(session)

    def set_captions(self, sha256: str, captions: Sequence[str]) -> ImageRecord:
        """Set a person's captions, which win over captions of the sources; an empty list removes them.

        Raises:
            DataError: no image, or more than one, starts with these digits.
        """
        with self.write() as session:
            full_sha256 = find_image(session, sha256).sha256
            texts = dict.fromkeys(" ".join(text.split()) for text in captions)
            replace_edits(session, {full_sha256: [Caption(text, "edited") for text in texts if text]})
            session.expire_all()
            return find_image(session, full_sha256)

    def blob_sample(self, limit: int) -> list[tuple[str, int]]:
        """Return (SHA-256, size) of at most `limit` images that were not taken down, evenly spread."""
        with self.read() as session:
            return sample_blobs(session, limit)

    def details(self, sha256: str) -> ImageDetails:
        """Collect everything about a collected image, found by its SHA-256 or the first digits.

        Raises:
            DataError: no image, or more than one, starts with these digits.
        """
        with self.read() as session:
            return image_details(session, sha256)

    def describe(self, sha256: str) -> ImageDetails | DrawnDetails:
        """Collect everything about a collected or drawn image, found by its SHA-256 or the first digits.

        Raises:
            DataError: no image, or more than one, starts with these digits.
        """
        with self.read() as session:
            return describe(session, sha256)

    def find(self, sha256: str) -> str:
        """Find the full SHA-256 of a collected or drawn image by its first digits.

        Raises:
            DataError: no image, or more than one, starts with these digits.
        """
        with self.read() as session:
            return find_sha256(session, sha256)

    def generations(self, limit: int | None = None) -> tuple[Generation, ...]:
        """List drawn images, the newest first."""
        with self.read() as session:
            return list_generations(session, limit)

    def generation_count(self) -> int:
        """Count drawn images."""
        with self.read() as session:
            return count_generations(session)

    def decide(self, sha256: str, verdict: Verdict, why: str, who: str) -> str:
        """Record a person's verdict, which wins over every check; see `sdlora.store.curation.decide_by_person`."""
        with self.write() as session:
            return decide_by_person(session, sha256, verdict, why, who)

    def undo_decision(self, sha256: str, who: str) -> str:
        """Withdraw a person's verdict; see `sdlora.store.curation.undo_decision`."""
        with self.write() as session:
            return undo_decision(session, sha256, who)

    def purge(self, sha256: str, why: str, who: str) -> Purged:
        """Take an image down: remove the bytes and keep a tombstone with the reason, so that it cannot return.

        The same call completes a takedown that was killed. Files computed from the image (caches, pages) stay.

        Raises:
            DataError: no such image, or no reason given.
            StorageError: the bytes cannot be removed.
        """
        with self.write() as session:
            purged = purge_image(session, sha256, why, who)
            for mask in purged.masks:  # before the commit, so that a repetition after a kill finds the masks again
                self.blobs.remove(mask)
        self.blobs.remove(purged.details.record.sha256)
        return purged

    def snapshots(self, limit: int | None = None) -> tuple[SnapshotRecord, ...]:
        """List snapshots with the versions trained on them, the newest first."""
        with self.read() as session:
            return list_snapshots(session, limit)

    def snapshot(self, digest: str) -> SnapshotRecord:
        """Find a snapshot by its digest or the first digits.

        Raises:
            DataError: no snapshot, or more than one, starts with these digits.
        """
        with self.read() as session:
            return find_snapshot(session, digest)

    def add_generation(
        self,
        content: bytes,
        *,
        model_version: str,
        prompt: str,
        negative_prompt: str = "",
        seed: int,
        steps: int,
        guidance_scale: float,
    ) -> str:
        """Store a generated image with everything needed to generate it again; return its SHA-256."""
        sha256 = self.blobs.put(content)
        row = {
            "sha256": sha256,
            "model_version": model_version,
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "seed": seed,
            "steps": steps,
            "guidance_scale": guidance_scale,
        }
        with self.write() as session:
            insert_or_ignore(session, GenerationTable, [row])
        return sha256

    def rate(self, sha256: str, stars: int, rater: str = "me", why: str = "") -> str:
        """Record a person's rating of a generated or collected image; see `sdlora.store.ratings.rate`."""
        with self.write() as session:
            return rate(session, sha256, stars, rater, why)

    def undo_rating(self, sha256: str, rater: str = "me") -> str:
        """Withdraw a person's rating of an image; see `sdlora.store.ratings.undo_rating`."""
        with self.write() as session:
            return undo_rating(session, sha256, rater)
