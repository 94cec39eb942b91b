from __future__ import annotations

import pytest
from sqlalchemy import update

from sdlora.core.progress import SILENT
from sdlora.data.snapshot import SnapshotRow, restore_snapshot, snapshot_digest
from sdlora.integrity import images
from sdlora.integrity.images import verify_images
from sdlora.integrity.verify import Registered, verify
from sdlora.store.intake import SeenFile, record_files, register_source
from sdlora.store.masks import Mask
from sdlora.store.tables.versions import SnapshotImageTable, SnapshotTable
from tests.stores import both_places


@pytest.fixture
def filled(store, dataset):
    """Five images of a source, one of them with a mask, and a drawn image."""
    shas = [store.blobs.put(f"image {number}".encode()) for number in range(5)]
    mask = Mask("0.mask.png", store.blobs.put(b"mask"), 4)
    with store.write() as session:
        source = register_source(session, dataset.id, "key", "pictures")
        files = [SeenFile(f"{number}.png", sha, 7, mask=None if number else mask) for number, sha in enumerate(shas)]
        record_files(session, dataset.id, source, files)
    drawn = store.add_generation(b"drawn", model_version="v 1", prompt="a car", seed=3, steps=1, guidance_scale=1.0)
    return store, shas, mask.sha256, drawn


def damage(store, sha256):
    store.blobs._fs.pipe_file(store.blobs._path(sha256), b"other")


@both_places
def test_missing_and_damaged_bytes_are_found_wherever_they_lie(filled, monkeypatch):
    store, shas, mask, drawn = filled
    monkeypatch.setattr(images, "_ROWS_PER_QUERY", 2)
    reports = []
    assert verify_images(store, lambda *report: reports.append(report)) == []
    assert reports[-1] == ("read images", 7, 7)
    store.blobs.remove(shas[1])
    for sha256 in (shas[0], mask, drawn):
        damage(store, sha256)
    found = {each.what: each for each in verify_images(store, SILENT.on_progress)}
    assert {what: each.problem for what, each in found.items()} == {
        f"image {shas[0][:12]}": "damaged",
        f"image {shas[1][:12]}": "missing",
        f"mask {mask[:12]}": "damaged",
        f"drawn image {drawn[:12]}": "damaged",
    }
    first = found[f"image {shas[0][:12]}"]
    assert first.where == store.blobs.address(shas[0])
    assert first.remedy == f"Delete {first.where}. Collect its source again: 0.png of pictures."
    assert found[f"image {shas[1][:12]}"].remedy == "Collect its source again: 1.png of pictures."
    assert "0.mask.png of pictures" in found[f"mask {mask[:12]}"].remedy
    assert "v 1, seed 3: 'a car'" in found[f"drawn image {drawn[:12]}"].remedy


def test_bytes_of_a_purged_image_are_gone_on_purpose(filled):
    store, shas, *_ = filled
    store.purge(shas[0], "asked for", "me")
    assert verify_images(store, SILENT.on_progress) == []


@both_places
def test_a_snapshot_is_restored_from_rows_with_its_digest_only(filled):
    store, shas, *_ = filled
    rows = tuple(SnapshotRow(sha256, ("caption",), "train", weight=2.0) for sha256 in sorted(shas))
    digest = snapshot_digest(rows)
    with store.write() as session:
        session.add(SnapshotTable(dataset_id=1, digest=digest, train_count=5, held_out_count=0))
    restore_snapshot(store, digest, rows)
    with store.write() as session:
        session.execute(update(SnapshotImageTable).values(captions=["other"]))

    def check(logged, repair=True):
        registered = Registered(find_rows={digest: logged}.get)
        found = verify(store.home, store, registered, SILENT.on_progress, repair=repair)
        return [(each.kind, each.repaired) for each in found]

    assert check(None) == [("snapshot", False)]
    assert check(rows[1:]) == [("snapshot", False)]
    assert check(rows, repair=False) == [("snapshot", False)]
    assert check(rows) == [("snapshot", True)]
    assert check(rows) == []
