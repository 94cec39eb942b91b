"""Bytes of images that the database promises are on the disk, also after a power cut."""

from __future__ import annotations

import pytest
from sqlalchemy import event

from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.store.image_store import ImageStore
from tests.power_cut import recorded_flushes
from tests.tiny import draw_images


def digests_of(connection):
    return {row[0] for row in connection.exec_driver_sql("SELECT sha256 FROM images")}


@pytest.mark.parametrize("batch", [3, 500])
def test_an_image_is_on_the_disk_before_it_is_recorded(batch, tmp_path, monkeypatch):
    monkeypatch.setattr("sdlora.data.source_pass._FILES_PER_BATCH", batch)
    source, recorded = draw_images(tmp_path / "source", 10), []
    with ImageStore.open(tmp_path / "home") as store, recorded_flushes() as disk:

        def compare(connection):
            left = disk.after_power_cut(tmp_path / "home")
            recorded.append(digests_of(connection))
            assert {f"blobs/{digest[:2]}/{digest}" for digest in recorded[-1]} <= left.keys()
            for digest in recorded[-1]:
                path = tmp_path / "home" / "blobs" / digest[:2] / digest
                assert left[f"blobs/{digest[:2]}/{digest}"] == path.read_bytes() != b""

        event.listen(store.database.engine, "commit", compare)
        dataset = store.dataset("icons")
        collect(dataset, str(source), DataConfig())
        assert collect(dataset, str(source), DataConfig()).bytes_read == 0
    assert len(recorded[-1]) == 10
    assert len(recorded) >= (4 if batch == 3 else 1)


def test_a_blob_whose_name_a_killed_writer_did_not_flush_is_flushed_by_the_next_one(tmp_path):
    with ImageStore.open(tmp_path / "home") as store:
        sha256 = store.blobs.put(b"written, then killed")
        with recorded_flushes() as disk:
            store.dataset("icons").add_image(b"written, then killed")
    (folder,) = [names for names in disk._names.values() if sha256 in names]
    assert folder.keys() == {sha256}


def test_a_drawn_image_is_on_the_disk_when_it_is_recorded(tmp_path):
    with ImageStore.open(tmp_path / "home") as store, recorded_flushes() as disk:
        sha256 = store.add_generation(b"pixels", model_version="v", prompt="p", seed=0, steps=1, guidance_scale=1.0)
    assert disk.after_power_cut(tmp_path / "home")[f"blobs/{sha256[:2]}/{sha256}"] == b"pixels"
