from __future__ import annotations

import pytest
from sqlalchemy import func, select

from sdlora.core.errors import DataError
from sdlora.store.blobs import BlobStore
from sdlora.store.dataset import Dataset
from sdlora.store.overrides import PURGED
from sdlora.store.tables.datasets import CaptionTable
from sdlora.store.tables.images import DecodingTable, FingerprintTable
from tests.stores import both_places

pytestmark = both_places


def test_a_persons_word_decides_at_once_and_says_who_and_why(dataset: Dataset) -> None:
    sha256 = dataset.add_image(b"bytes")
    dataset.decide(sha256[:10], "rejected", "not  our style", "ana")
    image = dataset.image(sha256)
    assert (image.verdict, image.rejected_by) == ("rejected", "person")
    assert image.reason is not None
    assert image.reason.startswith("rejected by ana on 20")
    assert image.reason.endswith(": not our style")


def test_the_newest_word_counts_and_the_history_is_kept(dataset: Dataset) -> None:
    sha256 = dataset.add_image(b"bytes")
    dataset.decide(sha256, "rejected", "too dark", "ana")
    dataset.decide(sha256, "accepted", "dark on purpose", "ben")
    assert dataset.image(sha256).verdict == "accepted"
    first, second = dataset.details(sha256).overrides
    assert (first.who, first.why, first.withdrawn_by) == ("ana", "too dark", "ben")
    assert (second.who, second.why, second.withdrawn_at) == ("ben", "dark on purpose", None)


def test_a_word_taken_back_leaves_the_image_to_the_checks(dataset: Dataset) -> None:
    sha256 = dataset.add_image(b"bytes")
    dataset.decide(sha256, "rejected", "a mistake", "ana")
    dataset.undo_decision(sha256, "ana")
    assert dataset.image(sha256).verdict is None
    with pytest.raises(DataError, match="nothing to undo"):
        dataset.undo_decision(sha256, "ana")


def test_a_decision_without_a_reason_is_refused(dataset: Dataset) -> None:
    sha256 = dataset.add_image(b"bytes")
    with pytest.raises(DataError, match="--why is empty"):
        dataset.decide(sha256, "rejected", "  ", "ana")
    assert dataset.image(sha256).verdict is None


def test_a_purged_image_leaves_a_tombstone_and_cannot_come_back(dataset: Dataset) -> None:
    sha256 = dataset.add_image(b"private bytes", ["a private caption"])
    other = dataset.add_image(b"other bytes", ["another"])
    purged = dataset.store.purge(sha256[:12], "asked to by the photographer", "ana")
    assert (purged.captions, purged.lineage.datasets) == (("a private caption",), ("icons",))
    assert not dataset.store.blobs.has(sha256, len(b"private bytes"))
    image = dataset.image(sha256)
    assert (image.verdict, image.rejected_by, image.captions) == ("rejected", PURGED, ())
    with pytest.raises(DataError, match=r"purged by ana.*photographer.*cannot be added again"):
        dataset.add_image(b"private bytes")
    assert not dataset.store.blobs.has(sha256, len(b"private bytes"))
    assert dataset.store.read_bytes(other) == b"other bytes"
    with dataset.store.read() as session:
        assert session.scalar(select(func.count()).select_from(CaptionTable)) == 1


def test_a_purge_can_be_repeated_but_not_undone_or_overruled(dataset: Dataset) -> None:
    sha256 = dataset.add_image(b"bytes")
    dataset.store.purge(sha256, "the first reason", "ana")
    assert dataset.store.purge(sha256, "another reason", "ben").override.why == "the first reason"
    for overrule in (
        lambda: dataset.undo_decision(sha256, "ben"),
        lambda: dataset.decide(sha256, "accepted", "I want it", "ben"),
    ):
        with pytest.raises(DataError, match="the first reason"):
            overrule()


def test_an_image_that_is_purged_while_it_is_added_stays_out(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = dataset.add_image(b"private bytes")
    other = dataset.store.dataset("other")
    put = BlobStore.put

    def purge_and_put(blobs: BlobStore, content: bytes) -> str:
        dataset.store.purge(sha256, "a takedown", "ana")
        return put(blobs, content)

    monkeypatch.setattr(BlobStore, "put", purge_and_put)
    with pytest.raises(DataError, match="a takedown"):
        other.add_image(b"private bytes", ["a caption"])
    assert other.images() == []
    assert not dataset.store.blobs.has(sha256, len(b"private bytes"))


def test_what_a_purged_image_looked_like_is_forgotten_unless_another_shows_the_same(dataset: Dataset) -> None:
    shas = [dataset.add_image(content) for content in (b"one", b"the same pixels")]
    with dataset.store.write() as session:
        session.add(
            FingerprintTable(pixels_sha256="0" * 64, version=1, hashes=bytes(32), aspect=1.0, thumbnail=b"pixels")
        )
        session.flush()
        for image_id in (1, 2):
            session.add(DecodingTable(image_id=image_id, background="", decoded_as="1", fingerprint_id=1))
    counted = select(func.count()).select_from(FingerprintTable)
    for sha256, left in zip(shas, (1, 0), strict=True):
        dataset.store.purge(sha256, "a takedown", "ana")
        with dataset.store.read() as session:
            assert session.scalar(counted) == left
