"""The image database as one object."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy.orm import Session

from sdlora.core.errors import DataError
from sdlora.store.blobs import BlobStore
from sdlora.store.curation import Purged, decide_by_person, purge_image, undo_decision
from sdlora.store.database import Database, open_database
from sdlora.store.details import ImageDetails, image_details
from sdlora.store.intake import SeenFile, insert_or_ignore, record_files, register_source, replace_edits
from sdlora.store.lineage import SnapshotRecord, find_snapshot, list_snapshots
from sdlora.store.location import StoreLocation
from sdlora.store.overrides import purged_reasons
from sdlora.store.queries import count_images, find_image, list_images
from sdlora.store.ratings import rate, undo_rating
from sdlora.store.records import Caption, Counts, ImageRecord, Verdict
from sdlora.store.tables import GenerationTable


class ImageStore:
    """Images, captions, verdicts and snapshots in a database, and the bytes they speak of.

    By default all of it lies under `home` (`images.db`, `blobs/`) and names no path outside, so the folder can be
    moved. Several processes, on PostgreSQL several machines, may have the same store open. Use it as a context
    manager, or call `close()`.
    """

    def __init__(self, home: Path, database: Database, blobs: BlobStore) -> None:
        self.home = home
        self.blobs = blobs
        self.database = database

    @classmethod
    def open(cls, home: Path, location: StoreLocation | None = None) -> ImageStore:
        """Open the store of `home`, created or brought to the newest schema where needed.

        Args:
            home: the state folder, which also holds what was computed from the images.
            location: where database and bytes are; by default what the environment says, else `home`.

        Raises:
            StorageError: it cannot be reached or written, or the database is damaged or of a newer sdlora.
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
        """A session that sees one state of the database, whatever others write meanwhile."""
        return self.database.read()

    def write(self) -> AbstractContextManager[Session]:
        """A session that holds the write lock from the start; all of it is recorded at the end, or nothing.

        Raises:
            StorageError: the disk is full or not writable, or another process keeps the lock.
        """
        return self.database.write()

    def add_image(
        self, content: bytes, captions: Sequence[str] = (), *, source: str | None = None, licence: str | None = None
    ) -> str:
        """Add one image by its bytes and return its SHA-256. Bytes that are known already gain the captions only.

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
        """Raise `DataError` if this image was taken down: nothing may bring its bytes back."""
        with self.read() as session:
            reasons = purged_reasons(session, [sha256])
        if reasons:
            raise DataError(f"Image {sha256[:12]} was {reasons[sha256]}. It is not taken again.")

    def read_bytes(self, sha256: str) -> bytes:
        """The bytes of an image, compared with their digest.

        Raises:
            DataError: they are missing or damaged.
        """
        return self.blobs.get(sha256)

    def images(
        self,
        verdict: Verdict | None = None,
        *,
        rejected_by: str | None = None,
        caption: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[ImageRecord]:
        """Images in the order they were collected; see `sdlora.store.queries.list_images`."""
        with self.read() as session:
            return list_images(session, verdict, rejected_by, caption, limit, offset)

    def image(self, sha256: str) -> ImageRecord:
        """One image, by its SHA-256 or the first digits of it.

        Raises:
            DataError: no image, or more than one, starts with these digits.
        """
        with self.read() as session:
            return find_image(session, sha256)

    def counts(self) -> Counts:
        """How many images have which verdict."""
        with self.read() as session:
            return count_images(session)

    def set_captions(self, sha256: str, captions: Sequence[str]) -> ImageRecord:
        """Let a person's captions stand in place of those from the sources; none gives the sources their say again.

        Raises:
            DataError: no image, or more than one, starts with these digits.
        """
        with self.write() as session:
            full_sha256 = find_image(session, sha256).sha256
            texts = dict.fromkeys(" ".join(text.split()) for text in captions)
            replace_edits(session, {full_sha256: [Caption(text, "edited") for text in texts if text]})
            session.expire_all()
            return find_image(session, full_sha256)

    def details(self, sha256: str) -> ImageDetails:
        """All that is known of one image, by its SHA-256 or the first digits of it.

        Raises:
            DataError: no image, or more than one, starts with these digits.
        """
        with self.read() as session:
            return image_details(session, sha256)

    def decide(self, sha256: str, verdict: Verdict, why: str, who: str) -> str:
        """Let a person's verdict win over every check; see `sdlora.store.curation.decide_by_person`."""
        with self.write() as session:
            return decide_by_person(session, sha256, verdict, why, who)

    def undo_decision(self, sha256: str, who: str) -> str:
        """Take a person's verdict back; see `sdlora.store.curation.undo_decision`."""
        with self.write() as session:
            return undo_decision(session, sha256, who)

    def purge(self, sha256: str, why: str, who: str) -> Purged:
        """Take an image down: its bytes are removed, a tombstone with the reason stays and keeps it from coming back.

        A run that is killed in between is finished by the same call. What was made of the image (caches, pages) is
        not touched.

        Raises:
            DataError: no such image, or no reason.
            StorageError: the bytes cannot be removed.
        """
        with self.write() as session:
            purged = purge_image(session, sha256, why, who)
            for mask in purged.masks:  # before they are forgotten: a run that is killed here finds them again
                self.blobs.remove(mask)
        self.blobs.remove(purged.details.record.sha256)
        return purged

    def snapshots(self, limit: int | None = None) -> tuple[SnapshotRecord, ...]:
        """Snapshots with the versions trained on them, the newest first."""
        with self.read() as session:
            return list_snapshots(session, limit)

    def snapshot(self, digest: str) -> SnapshotRecord:
        """One snapshot, by its digest or the first digits of it.

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
        """Keep an image that a model drew, with all that is needed to draw it again; returns its SHA-256."""
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
        """Record what a person thinks of an image, drawn or collected; see `sdlora.store.ratings.rate`."""
        with self.write() as session:
            return rate(session, sha256, stars, rater, why)

    def undo_rating(self, sha256: str, rater: str = "me") -> str:
        """Let a person have said nothing of an image; see `sdlora.store.ratings.take_back`."""
        with self.write() as session:
            return undo_rating(session, sha256, rater)
