"""`Dataset`: a named set of images in the image database, as one object."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdlora.store.captions import replace_edits
from sdlora.store.curation import decide_by_person, undo_decision
from sdlora.store.details import ImageDetails, image_details
from sdlora.store.intake import SeenFile, record_files, register_source
from sdlora.store.lineage import SnapshotRecord, find_snapshot, list_snapshots
from sdlora.store.membership import Added, add_from, bring_back, remove
from sdlora.store.queries import count_images, find_image, find_member, list_images
from sdlora.store.records import Caption, Counts, ImageRecord, Verdict
from sdlora.store.selection import Selection

if TYPE_CHECKING:
    from sdlora.store.image_store import ImageStore


@dataclass(frozen=True)
class Dataset:
    """Named set of images in an open store.

    The images' bytes, scores and ratings belong to the store, and are kept once. Verdicts, captions, sides of the split
    and snapshots belong to the dataset. Nothing that the dataset decides depends on another dataset.
    """

    store: ImageStore
    id: int
    name: str

    def add_image(
        self, content: bytes, captions: Sequence[str] = (), *, source: str | None = None, licence: str | None = None
    ) -> str:
        """Add an image by its bytes and return its SHA-256. An image of the dataset only gains the captions.

        Raises:
            DataError: the image was purged.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        self.store.refuse_purged(sha256)
        self.store.blobs.put(content)
        with self.store.write() as session:
            if self.store.lost_blobs(session, [(sha256, len(content))]):
                self.store.blobs.put(content)
            source_id = register_source(session, self.id, "by-hand", "by-hand")
            recorded_captions = tuple(Caption(text, "metadata") for text in dict.fromkeys(captions)) or None
            seen = SeenFile(sha256, sha256, len(content), source=source, licence=licence, captions=recorded_captions)
            recorded = record_files(session, self.id, source_id, [seen])
        if recorded.purged:  # between the check and the recording
            self.store.blobs.remove(sha256)
            self.store.refuse_purged(sha256)
        return sha256

    def images(
        self,
        verdict: Verdict | None = None,
        *,
        rejected_by: str | None = None,
        caption: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[ImageRecord]:
        """List images in the order in which they joined the dataset; `select` knows more conditions."""
        return self.select(Selection(verdict, rejected_by, caption=caption), limit, offset)

    def select(self, selection: Selection, limit: int | None = None, offset: int = 0) -> list[ImageRecord]:
        """List the images that meet all conditions, in the order in which they joined the dataset."""
        with self.store.read() as session:
            return list_images(session, self.id, selection, limit, offset)

    def removed(self, selection: Selection) -> list[ImageRecord]:
        """List the images that meet all conditions and were removed from the dataset."""
        with self.store.read() as session:
            return list_images(session, self.id, selection, removed=True)

    def image(self, sha256: str) -> ImageRecord:
        """Find an image by its SHA-256 or the first digits; it may have been removed from the dataset.

        Raises:
            DataError: no image of the dataset, or more than one, starts with these digits.
        """
        with self.store.read() as session:
            return find_image(session, self.id, sha256)

    def counts(self) -> Counts:
        """Count images by verdict."""
        with self.store.read() as session:
            return count_images(session, self.id)

    def set_captions(self, sha256: str, captions: Sequence[str]) -> ImageRecord:
        """Set a person's captions, which win over captions of the sources; an empty list removes them.

        Raises:
            DataError: no image of the dataset, or more than one, starts with these digits.
        """
        with self.store.write() as session:
            member_id = find_member(session, self.id, sha256)
            texts = dict.fromkeys(" ".join(text.split()) for text in captions)
            replace_edits(session, member_id, [Caption(text, "edited") for text in texts if text])
            session.expire_all()
            return find_image(session, self.id, sha256)

    def details(self, sha256: str) -> ImageDetails:
        """Collect everything about an image, found by its SHA-256 or the first digits.

        Raises:
            DataError: no image of the dataset, or more than one, starts with these digits.
        """
        with self.store.read() as session:
            return image_details(session, self.id, sha256)

    def decide(self, sha256: str, verdict: Verdict, why: str, who: str) -> str:
        """Record a person's verdict, which wins over every check; see `sdlora.store.curation.decide_by_person`."""
        with self.store.write() as session:
            return decide_by_person(session, self.id, sha256, verdict, why, who)

    def undo_decision(self, sha256: str, who: str) -> str:
        """Withdraw a person's verdict; see `sdlora.store.curation.undo_decision`."""
        with self.store.write() as session:
            return undo_decision(session, self.id, sha256, who)

    def add_from(self, other: Dataset, selection: Selection, *, with_captions: bool = True) -> Added:
        """Add the selected images of another dataset; see `sdlora.store.membership.add_from`."""
        with self.store.write() as session:
            return add_from(session, self.id, other.id, selection, with_captions=with_captions)

    def bring_back(self, selection: Selection) -> tuple[str, ...]:
        """Make selected removed images members again; see `sdlora.store.membership.bring_back`."""
        with self.store.write() as session:
            return bring_back(session, self.id, selection)

    def remove(self, selection: Selection, who: str) -> tuple[str, ...]:
        """Remove the selected images from the dataset; see `sdlora.store.membership.remove`."""
        with self.store.write() as session:
            return remove(session, self.id, selection, who)

    def snapshots(self, limit: int | None = None) -> tuple[SnapshotRecord, ...]:
        """List the dataset's snapshots with the versions trained on them, the newest first."""
        with self.store.read() as session:
            return list_snapshots(session, self.id, limit)

    def snapshot(self, digest: str) -> SnapshotRecord:
        """Find a snapshot of the dataset by its digest or the first digits.

        Raises:
            DataError: no snapshot, or more than one, starts with these digits.
        """
        with self.store.read() as session:
            return find_snapshot(session, digest, self.id)
