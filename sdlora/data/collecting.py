"""Bring the images of a source into the image database. Nothing is decoded here."""

from __future__ import annotations

from dataclasses import dataclass, field

from sdlora.data.config import DataConfig
from sdlora.data.sources import Item, Source, UnreadableItemError, open_source
from sdlora.progress import OnProgress
from sdlora.store import Caption, ImageStore
from sdlora.store.intake import (
    SeenFile,
    captions_by_image,
    known_files,
    record_files,
    register_source,
    replace_captions,
)

_BATCH = 200
_SHOWN = 10


@dataclass(frozen=True)
class SkippedFile:
    """A file whose bytes could not be taken, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class CollectReport:
    """What collecting one source brought.

    Attributes:
        files: image files that the source has.
        new: images that the database did not have; `new_files` names the first of them.
        known: files whose bytes it had, among them `copies` that this source shows under several names.
        recaptioned: known images of which the source now says something else.
        skipped: files that could not be read (the first ones; `skipped_count` has all).
        unmatched: files that the metadata speaks of but that are not there (the first ones, and their count).
    """

    source: str
    files: int
    new: int
    known: int
    copies: int
    recaptioned: int
    skipped_count: int
    unmatched_count: int
    new_files: tuple[str, ...]
    skipped: tuple[SkippedFile, ...]
    unmatched: tuple[str, ...]


def collect(store: ImageStore, uri: str, config: DataConfig, on_progress: OnProgress | None = None) -> CollectReport:
    """Record every image of a source: its bytes, its captions, and where it was seen.

    Known bytes are kept once. Files whose size and time have not changed are not even read. A run that is killed
    leaves whole images only; the next one goes on.

    Args:
        uri: a folder, or a Hugging Face dataset saved to disk.
    Raises:
        DataError: nothing is there, there is no image in it, or its metadata cannot be understood.
        StorageError: the disk is full or not writable.
    """
    source = open_source(uri)
    with store.write() as session:
        source_id = register_source(session, source.key, source.name)
    with store.read() as session:
        intake = _Intake(
            store, source, source_id, config, known_files(session, source_id), captions_by_image(session, source_id)
        )
    for done, item in enumerate(source.items(), start=1):
        intake.take(item)
        if on_progress and (done % 25 == 0 or done == source.count):
            on_progress("collect images", done, source.count)
    return intake.finish()


@dataclass
class _Intake:
    """One pass over one source."""

    store: ImageStore
    source: Source
    source_id: int
    config: DataConfig
    known: dict[str, SeenFile]
    stored_captions: dict[str, tuple[Caption, ...]]
    captions: dict[str, dict[str, Caption]] = field(default_factory=dict)  # by image, then by text
    written: dict[str, tuple[Caption, ...]] = field(default_factory=dict)
    batch: list[SeenFile] = field(default_factory=list)
    new_files: list[str] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)
    new: int = 0
    seen: int = 0

    def take(self, item: Item) -> None:
        seen = self._unchanged(item)
        if seen is None:
            try:
                seen = self._read(item)
            except UnreadableItemError as error:
                self.skipped.append(SkippedFile(item.path, str(error)))
                return
            if not _same_place(seen, self.known.get(item.path)):
                self.batch.append(seen)
        self.seen += 1
        self.captions.setdefault(seen.sha256, {}).update({caption.text: caption for caption in item.captions})
        if len(self.batch) >= _BATCH:
            self._flush()

    def finish(self) -> CollectReport:
        self._flush()
        said = {sha256: tuple(captions.values()) for sha256, captions in self.captions.items()}
        stored = self.stored_captions | self.written
        changed = {sha256: captions for sha256, captions in said.items() if captions != stored.get(sha256, ())}
        if changed:
            with self.store.write() as session:
                replace_captions(session, self.source_id, changed)
        return CollectReport(
            source=self.source.name,
            files=self.source.count,
            new=self.new,
            known=self.seen - self.new,
            copies=self.seen - len(self.captions),
            recaptioned=sum(sha256 in self.stored_captions for sha256 in changed),
            skipped_count=len(self.skipped),
            unmatched_count=len(self.source.unmatched),
            new_files=tuple(self.new_files[:_SHOWN]),
            skipped=tuple(self.skipped[:_SHOWN]),
            unmatched=self.source.unmatched[:_SHOWN],
        )

    def _unchanged(self, item: Item) -> SeenFile | None:
        known = self.known.get(item.path)
        if known is None or item.stamp != (known.byte_size, known.mtime_ns):
            return None
        return known if self.store.blobs.has(known.sha256, known.byte_size) else None

    def _read(self, item: Item) -> SeenFile:
        if item.stamp and item.stamp[0] > self.config.max_file_bytes:
            raise UnreadableItemError(
                f"{item.stamp[0]:,} bytes, more than max_file_bytes = {self.config.max_file_bytes:,}"
            )
        content = item.read()
        sha256 = self.store.blobs.put(content)
        mtime_ns = item.stamp[1] if item.stamp else None
        return SeenFile(item.path, sha256, len(content), mtime_ns, item.origin, item.licence)

    def _flush(self) -> None:
        if not self.batch:
            return
        first_seen = {
            file.sha256: tuple(self.captions[file.sha256].values())
            for file in self.batch
            if file.sha256 not in self.stored_captions
        }
        with self.store.write() as session:
            new = record_files(session, self.source_id, self.batch)
            # In the same transaction: an image that is there has its captions, wherever a run is killed.
            replace_captions(session, self.source_id, first_seen)
        self.written.update(first_seen)
        self.new += len(new)
        unnamed = set(new)
        for file in self.batch:
            if file.sha256 in unnamed:
                unnamed.discard(file.sha256)
                self.new_files.append(file.path)
        self.batch.clear()


def _same_place(seen: SeenFile, known: SeenFile | None) -> bool:
    return known is not None and (seen.sha256, seen.mtime_ns) == (known.sha256, known.mtime_ns)
