"""`ImageStore`: the image database as one object."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sdlora.core.errors import DataError
from sdlora.store.blobs import BlobStore
from sdlora.store.bulk import insert_or_ignore
from sdlora.store.curation import Purged, purge_image
from sdlora.store.database import Database, open_database
from sdlora.store.dataset import Dataset
from sdlora.store.datasets import (
    DatasetFigures,
    dataset_figures,
    dataset_names,
    delete_dataset,
    find_dataset,
    make_dataset,
    rename_dataset,
    require_dataset,
)
from sdlora.store.details import DrawnDetails, drawn_details
from sdlora.store.generations import Generation, count_generations, list_generations
from sdlora.store.ids import image_ids
from sdlora.store.lineage import ImageLineage, SnapshotRecord, find_snapshot, image_lineage, list_snapshots
from sdlora.store.location import StoreLocation, patience_seconds
from sdlora.store.locks import FOLDER, style_lock
from sdlora.store.overrides import purged_reasons
from sdlora.store.queries import datasets_of, find_collected, find_sha256, sample_blobs
from sdlora.store.ratings import rate, undo_rating
from sdlora.store.removed_files import forget_blobs, unreferenced_blobs, without_row
from sdlora.store.tables.images import ImageTable
from sdlora.store.tables.ratings import GenerationTable


class ImageStore:
    """Images in named datasets, with captions, verdicts and snapshots in a database, and the bytes of the images.

    Each image is stored once, whatever number of datasets it is in. By default the store is in `home` (`images.db`,
    `blobs/`) and contains no path outside, so the folder can be moved. Several processes, on PostgreSQL several
    machines, may open the same store. Use the store as a context manager, or call `close()`.
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
        return cls(home, open_database(location.database, patience_seconds()), BlobStore(location.blobs))

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, *, waits: bool = True) -> AbstractContextManager[Session]:
        """Open a session that reads one state of the database, unaffected by concurrent writers.

        Args:
            waits: wait for a server that is away, see `sdlora.store.location.patience_seconds`.
        """
        return self.database.read(waits=waits)

    def write(self) -> AbstractContextManager[Session]:
        """Open a session that holds the write lock from the start; it is committed at the end or rolled back.

        Raises:
            StorageError: the disk is full or not writable, or another process keeps the lock.
        """
        return self.database.write()

    def lock_style(self, style: str) -> AbstractContextManager[None]:
        """Hold the lock of a style; see `sdlora.store.locks.style_lock`."""
        return style_lock(self.database, self.home / FOLDER, style)

    def dataset(self, name: str) -> Dataset:
        """Return the dataset of this name; make an empty one if there is none.

        Raises:
            DataError: the name is not allowed, or belongs to a deleted dataset.
        """
        with self.read() as session:
            dataset_id = find_dataset(session, name)
        if dataset_id is None:
            with self.write() as session:
                dataset_id = make_dataset(session, name)
        return Dataset(self, dataset_id, name)

    def existing_dataset(self, name: str) -> Dataset:
        """Return the dataset of this name.

        Raises:
            DataError: there is no such dataset; the message has the nearest names.
        """
        with self.read() as session:
            return Dataset(self, require_dataset(session, name), name)

    def dataset_names(self) -> list[str]:
        """List the names of the datasets."""
        with self.read() as session:
            return dataset_names(session)

    def datasets(self) -> tuple[DatasetFigures, ...]:
        """List the datasets with their figures, deleted ones with snapshots last."""
        with self.read() as session:
            return dataset_figures(session)

    def rename_dataset(self, name: str, new_name: str) -> None:
        """Give a dataset another name; see `sdlora.store.datasets.rename_dataset`."""
        with self.write() as session:
            rename_dataset(session, name, new_name)

    def delete_dataset(self, name: str, *, force: bool = False) -> bool:
        """Delete a dataset; see `sdlora.store.datasets.delete_dataset`."""
        with self.write() as session:
            return delete_dataset(session, name, force=force)

    def lost_blobs(self, session: Session, blobs: Iterable[tuple[str, int]]) -> set[str]:
        """Return the SHA-256 of blobs, given as (SHA-256, size), that were deleted before any row refers to them.

        A clean-up or a takedown may delete bytes that a collection has just stored or found stored. Call this in the
        transaction that adds the rows: bytes with a row are not deleted, and `session` holds the write lock.
        """
        sizes = dict(blobs)
        return self.blobs.missing((sha256, sizes[sha256]) for sha256 in without_row(session, list(sizes)))

    def delete_unreferenced(self) -> None:
        """Delete the bytes of removed drawn images; a kill leaves the list of those that remain."""
        with self.write() as session:
            sha256s = unreferenced_blobs(session)
            for sha256 in sha256s:
                self.blobs.remove(sha256)
            forget_blobs(session, sha256s)

    def image_count(self) -> int:
        """Count the images of all datasets, each once, and of none."""
        with self.read() as session:
            return session.scalar(select(func.count()).select_from(ImageTable)) or 0

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

    def refuse_purged(self, sha256: str) -> None:
        """Raise `DataError` if the image was taken down, because its bytes must not return."""
        with self.read() as session:
            reasons = purged_reasons(session, [sha256])
        if reasons:
            raise DataError(
                f"Image {sha256[:12]} was {reasons[sha256]}. Its bytes are gone for good, and it cannot be added again."
            )

    def find(self, sha256: str) -> str:
        """Find the full SHA-256 of a collected or drawn image by its first digits.

        Raises:
            DataError: no image, or more than one, starts with these digits.
        """
        with self.read() as session:
            return find_sha256(session, sha256)

    def is_collected(self, sha256: str) -> bool:
        """Return True if an image of this full SHA-256 was collected into a dataset."""
        with self.read() as session:
            return bool(image_ids(session, [sha256]))

    def datasets_of(self, sha256: str) -> list[str]:
        """List the names of the datasets that an image, given by its full SHA-256, belongs to."""
        with self.read() as session:
            return datasets_of(session, sha256)

    def drawn_details(self, sha256: str) -> DrawnDetails:
        """Collect the generations and ratings of a drawn image, given by its full SHA-256."""
        with self.read() as session:
            return drawn_details(session, sha256)

    def generations(self, limit: int | None = None) -> tuple[Generation, ...]:
        """List drawn images, the newest first."""
        with self.read() as session:
            return list_generations(session, limit)

    def generation_count(self) -> int:
        """Count drawn images."""
        with self.read() as session:
            return count_generations(session)

    def lineage(self, sha256: str) -> ImageLineage:
        """Read what was made of a collected image in every dataset; see `sdlora.store.lineage.image_lineage`.

        Raises:
            DataError: no collected image, or more than one, starts with these digits.
        """
        with self.read() as session:
            return image_lineage(session, find_collected(session, sha256))

    def blob_sample(self, limit: int) -> list[tuple[str, int]]:
        """Return (SHA-256, size) of at most `limit` images that were not taken down, evenly spread."""
        with self.read() as session:
            return sample_blobs(session, limit)

    def purge(self, sha256: str, why: str, who: str) -> Purged:
        """Take an image down in every dataset: remove the bytes and keep a tombstone, so that it cannot return.

        The same call completes a takedown that was killed. Files computed from the image (caches, pages) stay.

        Raises:
            DataError: no such image, or no reason given.
            StorageError: the bytes cannot be removed.
        """
        with self.write() as session:
            purged = purge_image(session, sha256, why, who)
            for mask in purged.masks:  # before the commit, so that a repetition after a kill finds the masks again
                self.blobs.remove(mask)
        self.blobs.remove(purged.lineage.sha256)
        return purged

    def snapshots(self, limit: int | None = None) -> tuple[SnapshotRecord, ...]:
        """List the snapshots of all datasets with the versions trained on them, the newest first."""
        with self.read() as session:
            return list_snapshots(session, limit=limit)

    def snapshot(self, digest: str) -> SnapshotRecord:
        """Find a snapshot of any dataset by its digest or the first digits.

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
            if self.lost_blobs(session, [(sha256, len(content))]):
                self.blobs.put(content)
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
