"""Summary of the images for the report: trained and rejected images, and the reasons."""

from __future__ import annotations

from collections import Counter

from sdlora.core.errors import DataError
from sdlora.data.snapshot import load_snapshot
from sdlora.release.record import DataSummary, RejectedImage
from sdlora.store.dataset import Dataset
from sdlora.store.records import ImageRecord

SHOWN_REJECTED = 48  # thumbnails in the report
UNKNOWN = "not stated"


def summarise_data(dataset: Dataset, snapshot_digest: str) -> DataSummary:
    """Summarise counts, origins and captions of a snapshot, and the rejected images of its dataset."""
    snapshot = load_snapshot(dataset.store, snapshot_digest)
    trained = {row.sha256 for row in snapshot.train}
    records = [record for record in dataset.images("accepted") if record.sha256 in trained]
    counts = dataset.counts()
    return DataSummary(
        train_count=len(snapshot.train),
        held_out_count=len(snapshot.held_out),
        verdicts={"accepted": counts.accepted, "rejected": counts.rejected},
        reasons=counts.rejected_by,
        rejected=[_rejected(dataset, record) for record in dataset.images("rejected", limit=SHOWN_REJECTED)],
        licences=Counter(record.licence or UNKNOWN for record in records),
        sources=Counter(record.source or UNKNOWN for record in records),
        captions=[row.captions[0] for row in snapshot.train if row.captions],
    )


def _rejected(dataset: Dataset, record: ImageRecord) -> RejectedImage:
    try:
        content = dataset.store.read_bytes(record.sha256)
    except DataError:  # damaged or purged: its name and reason are still known
        content = None
    name = record.files[0] if record.files else record.sha256[:12]
    return RejectedImage(name=name, reason=record.reason or "", content=content, sha256=record.sha256)
