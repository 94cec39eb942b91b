"""Pass over one source: items are read, and their images recorded in batches."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from sdlora.core.errors import SdloraError
from sdlora.core.progress import OnMetrics, OnProgress
from sdlora.data.collect_report import CollectReport, SkippedFile
from sdlora.data.config import DataConfig
from sdlora.data.decoding.mask import mask_problem
from sdlora.data.sources import Item, Source, UnreadableItemError
from sdlora.data.sources.base import shortened
from sdlora.data.sources.captions import caption_stamp, find_captions, repeats_of
from sdlora.data.threads import TryLaterError, in_lanes, in_order
from sdlora.store.blobs import BlobBatch
from sdlora.store.dataset import Dataset
from sdlora.store.image_store import ImageStore
from sdlora.store.intake import SeenFile, find_source, leave_source, record_files, recorded_files, register_source
from sdlora.store.masks import Mask, mask_blobs
from sdlora.store.overrides import purged_reasons, tombstones

_logger = logging.getLogger(__name__)

_FILES_PER_BATCH = 500
_SECONDS_PER_BATCH = 5.0
"""Interval of recording. A killed run fetches at most twice this much again."""
_FILES_SHOWN = 10
_PROGRESS_SECONDS = 0.1


@dataclass(frozen=True)
class _PendingItem:
    """New or changed item. `number` is its position in the source, from 1."""

    number: int
    item: Item
    seen_before: SeenFile | None


@dataclass(frozen=True)
class _Outcome:
    pending: _PendingItem
    seen: SeenFile | None
    reason: str = ""
    bytes_read: int = 0
    problems: tuple[str, ...] = ()

    @property
    def blobs(self) -> dict[str, int]:
        """Size of the bytes of image and mask, by SHA-256."""
        if self.seen is None:
            return {}
        mask = self.seen.mask
        of_mask = {mask.sha256: mask.byte_size or 0} if mask and mask.sha256 else {}
        return {self.seen.sha256: self.seen.byte_size, **of_mask}


@dataclass
class SourcePass:
    """Pass over one source."""

    dataset: Dataset
    source: Source
    config: DataConfig
    on_progress: OnProgress | None
    on_metrics: OnMetrics | None
    flusher: ThreadPoolExecutor  # of one thread: flushes one batch while the next one is read
    blobs: BlobBatch = field(init=False)  # flushed before its images are recorded
    purged: dict[str, str] = field(default_factory=dict)  # the reason, by SHA-256
    batch: list[_Outcome] = field(default_factory=list)
    new_files: list[str] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)
    skipped_count: int = 0
    new: int = 0
    seen: int = 0
    copies: int = 0
    recaptioned: int = 0
    bytes_read: int = 0
    listed: set[int] = field(default_factory=set)  # hashes of paths, if files that left the source count
    flushing: tuple[Future[None], list[_Outcome]] | None = None
    flushed_at: float = field(default_factory=time.monotonic)
    reported_at: float = 0.0

    def __post_init__(self) -> None:
        self.blobs = self.store.blobs.batch()

    @property
    def store(self) -> ImageStore:
        return self.dataset.store

    def outcomes(self) -> Iterator[_Outcome]:
        if self.source.per_lane is None:
            return in_order(self._pending_items(), self._ingest, self.source.workers)
        lane_of = lambda pending: pending.item.lane or ""  # noqa: E731
        return in_lanes(self._pending_items(), self._ingest, lane_of, self.source.workers, self.source.per_lane)

    def take(self, outcome: _Outcome) -> None:
        self.bytes_read += outcome.bytes_read
        for problem in outcome.problems:
            self.source.problems.add(outcome.pending.item.path, problem)
        if outcome.seen is None:
            self._skip(outcome.pending.item.path, outcome.reason)
        else:
            self.seen += 1
            self.batch.append(outcome)
        if len(self.batch) >= _FILES_PER_BATCH or time.monotonic() - self.flushed_at > _SECONDS_PER_BATCH:
            self._flush()
        elif self.flushing is not None and self.flushing[0].done():
            self._record_flushed()
        self._report_progress()

    def _skip(self, path: str, reason: str) -> None:
        self.skipped_count += 1
        if len(self.skipped) < _FILES_SHOWN:
            self.skipped.append(_shown(path, reason))

    def finish(self) -> CollectReport:
        while self.batch or self.flushing:  # what is recorded last may have to be read again
            self._flush()
            self._record_flushed()
        left = self._leave()
        self.store.blobs.sweep()
        self._report_progress(final=True)
        return CollectReport(
            source=self.source.name,
            files=self.seen + self.skipped_count,
            new=self.new,
            known=self.seen - self.new,
            copies=self.copies,
            recaptioned=self.recaptioned,
            skipped_count=self.skipped_count,
            unmatched_count=len(self.source.unmatched),
            new_files=tuple(self.new_files),
            skipped=tuple(self.skipped),
            unmatched=tuple(self.source.unmatched[:_FILES_SHOWN]),
            bytes_read=self.bytes_read,
            problem_count=self.source.problems.count,
            problems=tuple(_shown(place, reason) for place, reason in self.source.problems.first),
            left=left,
        )

    def _leave(self) -> int:
        """Remove images whose last file has left the source; return their number."""
        if not self.config.mirror_sources:
            return 0
        with self.store.write() as session:
            source_id = find_source(session, self.dataset.id, self.source.key)
            if source_id is None:
                return 0
            return leave_source(session, source_id, lambda path: hash(path) in self.listed)

    def _pending_items(self) -> Iterator[_PendingItem]:
        """Yield new and changed items. Unchanged items are only counted."""
        items, number = self.source.items(), 0
        with self.store.read() as session:
            source_id = find_source(session, self.dataset.id, self.source.key)
            self.purged = tombstones(session)
        while batch := list(islice(items, _FILES_PER_BATCH)):
            if source_id is None:
                seen_files = {}
            else:
                with self.store.read() as session:
                    paths = [item.path for item in batch]
                    seen_files, masks = recorded_files(session, source_id, paths), mask_blobs(session, source_id, paths)
                stored_blobs = [
                    (seen.sha256, seen.byte_size) for seen in seen_files.values() if seen.sha256 not in self.purged
                ]
                missing_blobs = self.store.blobs.missing([*stored_blobs, *masks.values()])
                seen_files = {path: seen for path, seen in seen_files.items() if seen.sha256 not in missing_blobs}
                seen_files = {
                    path: seen for path, seen in seen_files.items() if masks.get(path, ("",))[0] not in missing_blobs
                }
            if self.config.mirror_sources:
                self.listed.update(hash(item.path) for item in batch)
            for item in batch:
                number += 1
                seen = seen_files.get(item.path)
                if seen and self._is_recorded(item, seen):
                    self.seen += 1
                else:
                    yield _PendingItem(number, item, seen)
            self._report_progress()

    def _is_recorded(self, item: Item, seen: SeenFile) -> bool:
        return (
            _has_same_bytes(item, seen) and seen.caption_stamp == caption_stamp(item) and seen.sha256 not in self.purged
        )

    def _ingest(self, pending: _PendingItem) -> _Outcome:
        """Read one item and store its bytes. Runs in any thread."""
        item, seen_before = pending.item, pending.seen_before
        try:
            with _reading():
                unchanged = seen_before is not None and _has_same_bytes(item, seen_before)
                content = None if unchanged else item.read(seen_before.stamp if seen_before else None)
            if content is not None:
                file = SeenFile(item.path, content.sha256 if self.purged else "", len(content.data), content.stamp)
                bytes_of: Callable[[], bytes] = partial(getattr, content, "data")
            elif seen_before is not None:
                file, bytes_of = seen_before, partial(self.store.blobs.get, seen_before.sha256)
            else:
                raise UnreadableItemError("its host reports it as unchanged, but it was never collected before")
            self._refuse_purged(file.sha256)
            with _reading():
                sidecar = item.sidecar()
                captions, problems = find_captions(item, sidecar, bytes_of)
        except UnreadableItemError as error:
            return _Outcome(pending, None, str(error))
        seen = SeenFile(
            file.path,
            file.sha256 if content is None else self.blobs.put(content.data),
            file.byte_size,
            file.stamp,
            caption_stamp=caption_stamp(item),
            repeats=repeats_of(item.caption_path) if item.caption_path else None,
            source=sidecar.origin,
            licence=sidecar.licence,
            captions=captions,
            mask=self._read_mask(item, bytes_of),
        )
        return _Outcome(pending, seen, bytes_read=len(content.data) if content else 0, problems=problems)

    def _read_mask(self, item: Item, image: Callable[[], bytes]) -> Mask | None:
        """Store the mask of an item, if it has one. A problem is recorded for the check of masks."""
        if item.mask is None:
            return None
        try:
            with _reading():
                content = item.mask.read()
                problem = mask_problem(content, image(), self.config.max_pixels)
        except UnreadableItemError as error:
            return Mask(item.mask.path, None, None, shortened(str(error)))
        return Mask(item.mask.path, self.blobs.put(content), len(content), problem)

    def _refuse_purged(self, sha256: str) -> None:
        if sha256 in self.purged:
            raise UnreadableItemError(self._reason(sha256))

    def _flush(self) -> None:
        """Begin to flush the bytes of the batch, after the batch before it was recorded."""
        self._record_flushed()
        self.flushed_at = time.monotonic()
        if self.batch:
            batch, self.batch = self.batch, []
            self.flushing = self.flusher.submit(self.blobs.flush), batch

    def _record_flushed(self) -> None:
        """Record the batch whose bytes are being flushed; wait until they are on the disk."""
        if self.flushing is None:
            return
        (flushed, batch), self.flushing = self.flushing, None
        flushed.result()
        batch.sort(key=lambda outcome: outcome.pending.number)
        # One transaction: a killed run never leaves an image without its captions.
        with self.store.write() as session:
            lost = self.store.lost_blobs(session, (blob for outcome in batch for blob in outcome.blobs.items()))
            files = [one.seen for one in batch if one.seen and lost.isdisjoint(one.blobs)]
            source_id = register_source(session, self.dataset.id, self.source.key, self.source.name)
            recorded = record_files(session, self.dataset.id, source_id, files)
        if recorded.purged:
            self._skip_purged(files, recorded.purged)
            files = [file for file in files if file.sha256 not in recorded.purged]
        self.new += len(recorded.new)
        self.recaptioned += len(recorded.recaptioned)
        self.copies += len(files) - len({file.sha256 for file in files})
        unnamed = set(recorded.new)
        for file in files:
            if file.sha256 in unnamed and len(self.new_files) < _FILES_SHOWN:
                unnamed.discard(file.sha256)
                self.new_files.append(file.path)
        for outcome in batch if lost else ():
            if not lost.isdisjoint(outcome.blobs):
                self._read_again(outcome.pending)

    def _read_again(self, pending: _PendingItem) -> None:
        """Read an item again whose bytes were deleted before they were recorded."""
        self.seen -= 1
        try:
            self.take(self._ingest(pending))
        except TryLaterError:
            self._skip(pending.item.path, "its bytes were deleted meanwhile, and its host is busy; collect it again")

    def _skip_purged(self, files: Sequence[SeenFile], purged: Collection[str]) -> None:
        """Skip files whose images were purged after they were read, and remove the bytes that came back with them."""
        for sha256 in purged:
            self.store.blobs.remove(sha256)
        with self.store.read() as session:
            self.purged |= purged_reasons(session, list(purged))
        for file in files:
            if file.sha256 in purged:
                self.seen -= 1
                self._skip(file.path, self._reason(file.sha256))

    def _reason(self, sha256: str) -> str:
        return f"{self.purged[sha256]}; it is not collected again"

    def _report_progress(self, final: bool = False) -> None:
        now = time.monotonic()
        if not final and now - self.reported_at < _PROGRESS_SECONDS:
            return
        self.reported_at = now
        done = self.seen + self.skipped_count
        if self.on_progress:
            self.on_progress("collect images", done, done if final else self.source.count or 0)
        if self.on_metrics:
            self.on_metrics(done, {"bytes": self.bytes_read})


@contextmanager
def _reading() -> Iterator[None]:
    """Turn any error of a reader into the reason of one item: a stranger's file must not end the whole pass."""
    try:
        yield
    except (UnreadableItemError, TryLaterError, SdloraError):
        raise
    except Exception as error:
        _logger.warning("an item cannot be read", exc_info=True)
        raise UnreadableItemError(f"cannot be read: {type(error).__name__}: {error}") from error


def _shown(path: str, reason: str) -> SkippedFile:
    return SkippedFile(shortened(path), shortened(reason))


def _has_same_bytes(item: Item, seen: SeenFile) -> bool:
    return item.read_once or (item.stamp is not None and item.stamp == seen.stamp)
