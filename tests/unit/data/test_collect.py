from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from sdlora.core.errors import DataError
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.store.blobs import BlobBatch
from sdlora.store.dataset import Dataset
from sdlora.store.location import StoreLocation
from sdlora.store.removed_files import drop_drawn_images
from tests.stores import lose_all_bytes, opened_dataset, servers_when_patient
from tests.unit.data.drawing import drawing, encoded, fill_folder

pytestmark = servers_when_patient
CONFIG = DataConfig()


def _collect_in_process(home: Path, location: StoreLocation, folder: Path, start: object) -> None:
    start.wait()
    with opened_dataset(home, location) as dataset:
        collect(dataset, str(folder), CONFIG)


def test_every_file_with_an_image_suffix_becomes_an_image_with_captions_and_origin(
    dataset: Dataset, folder: Path
) -> None:
    fill_folder(folder, range(3))
    (folder / "not_a_picture.png").write_text("hello")
    report = collect(dataset, str(folder), CONFIG)
    assert (report.source, report.files, report.new, report.known) == ("pictures", 4, 4, 0)
    assert report.new_files == ("0000.png", "0001.png", "0002.png", "not_a_picture.png")
    by_file = {image.files[0]: image for image in dataset.images()}
    assert by_file["pictures/0001.png"].captions == ("drawing number 1",)
    assert by_file["pictures/not_a_picture.png"].captions == ("not a picture",)
    assert dataset.store.read_bytes(by_file["pictures/0001.png"].sha256) == (folder / "0001.png").read_bytes()


def test_a_second_pass_reads_no_file(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(5))
    collect(dataset, str(folder), CONFIG)
    # Same size and time, other bytes: a pass that reads the file would find a new image.
    for path in folder.glob("*.png"):
        status = path.stat()
        path.write_bytes(os.urandom(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    report = collect(dataset, str(folder), CONFIG)
    assert (report.new, report.known, report.recaptioned) == (0, 5, 0)


def test_a_touched_file_is_read_again_and_only_new_bytes_are_new(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(3))
    collect(dataset, str(folder), CONFIG)
    os.utime(folder / "0000.png", ns=(1, 1))
    (folder / "0001.png").write_bytes(encoded(drawing(77)))
    report = collect(dataset, str(folder), CONFIG)
    assert (report.new, report.known, report.new_files) == (1, 2, ("0001.png",))
    assert dataset.counts().total == 4


def test_lost_bytes_are_brought_back_by_collecting_again(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(2))
    collect(dataset, str(folder), CONFIG)
    lose_all_bytes(dataset)
    assert collect(dataset, str(folder), CONFIG).new == 0
    assert all(dataset.store.read_bytes(image.sha256) for image in dataset.images())


def test_the_same_bytes_under_two_names_are_one_image_with_the_captions_of_both(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(2), captions=False)
    shutil.copy(folder / "0000.png", folder / "copy.png")
    rows = '{"file_name": "0000.png", "text": "one name"}\n{"file_name": "copy.png", "text": "another"}\n'
    (folder / "metadata.jsonl").write_text(rows)
    report = collect(dataset, str(folder), CONFIG)
    assert (report.files, report.new, report.copies) == (3, 2, 1)
    (twice,) = [image for image in dataset.images() if len(image.files) == 2]
    assert twice.captions == ("one name", "another")
    assert collect(dataset, str(folder), CONFIG).recaptioned == 0


def test_changed_captions_replace_the_old_ones_of_that_source(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(2))
    collect(dataset, str(folder), CONFIG)
    (folder / "metadata.jsonl").write_text('{"file_name": "0000.png", "text": "a new caption"}\n')
    assert collect(dataset, str(folder), CONFIG).recaptioned == 2
    assert [image.captions for image in dataset.images()] == [("a new caption",), ("0001",)]


def test_a_file_that_cannot_be_read_is_reported_and_the_others_come_in(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(2))
    os.mkfifo(folder / "pipe.png")
    (folder / "dangling.png").symlink_to(folder / "nowhere")
    (folder / "huge.png").write_bytes(b"x" * 2_000_000)
    report = collect(dataset, str(folder), CONFIG.model_copy(update={"max_file_bytes": 1_000_000}))
    assert report.new == 2
    reasons = {skipped.path: skipped.reason for skipped in report.skipped}
    assert reasons.keys() == {"pipe.png", "dangling.png", "huge.png"}
    assert reasons["pipe.png"] == "not a regular file"
    assert "max_file_bytes = 1,000,000" in reasons["huge.png"]


def test_a_link_to_a_file_is_that_file_and_one_to_a_folder_is_passed_over(dataset: Dataset, folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(encoded(drawing(1)))
    (outside / "b.png").write_bytes(encoded(drawing(2)))
    (folder / "link.png").symlink_to(outside / "a.png")
    (folder / "folder.png").symlink_to(outside)
    report = collect(dataset, str(folder), CONFIG)
    assert (report.files, report.new, report.skipped) == (1, 1, ())
    status = (outside / "a.png").stat()
    same_size = encoded(drawing(3)).ljust(status.st_size, b"\0")[: status.st_size]
    (outside / "a.png").write_bytes(same_size)
    os.utime(outside / "a.png", ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    assert collect(dataset, str(folder), CONFIG).new == 1


def test_an_image_that_was_taken_down_does_not_come_back(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(2))
    collect(dataset, str(folder), CONFIG)
    gone = dataset.images()[0].sha256
    dataset.store.purge(gone, "the painter asked for it", "me")
    (folder / "copy.png").write_bytes((folder / "0000.png").read_bytes())
    report = collect(dataset, str(folder), CONFIG)
    assert (report.new, report.known, report.skipped_count) == (0, 1, 2)
    assert "the painter asked for it" in report.skipped[0].reason
    with pytest.raises(DataError):
        dataset.store.read_bytes(gone)


def test_a_dataset_is_collected_once(dataset: Dataset, folder: Path) -> None:
    import datasets  # not at the top: processes that these tests start import this file, too

    rows = {
        "image": [{"bytes": encoded(drawing(seed)), "path": None} for seed in range(4)],
        "text": [f"number {seed}" for seed in range(4)],
    }
    datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image()).save_to_disk(folder / "saved")
    assert collect(dataset, str(folder / "saved"), CONFIG).new == 4
    report = collect(dataset, str(folder / "saved"), CONFIG)
    assert (report.new, report.known, report.recaptioned) == (0, 4, 0)
    assert dataset.images()[3].captions == ("number 3",)


def test_nothing_is_recorded_of_a_source_that_is_refused(dataset: Dataset, folder: Path) -> None:
    with pytest.raises(DataError):
        collect(dataset, str(folder), CONFIG)
    assert dataset.counts().total == 0


def test_progress_ends_at_the_number_of_files(dataset: Dataset, folder: Path) -> None:
    fill_folder(folder, range(30))
    calls: list[tuple[str, int, int]] = []
    collect(dataset, str(folder), CONFIG, on_progress=lambda *call: calls.append(call))
    assert calls[-1] == ("collect images", 30, 30)
    assert calls == sorted(calls)


def test_two_collectors_at_once_lose_nothing_and_double_nothing(tmp_path: Path, location: StoreLocation) -> None:
    shared = fill_folder(tmp_path / "pictures", range(60))
    other = fill_folder(tmp_path / "more", range(30, 90))
    home = tmp_path / "home"
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Event()
    workers = [
        spawn.Process(target=_collect_in_process, args=(home, location, folder, start)) for folder in (shared, other)
    ]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    with opened_dataset(home, location) as dataset:
        images = dataset.images()
    assert len(images) == len({image.sha256 for image in images}) == 90
    assert sum(len(image.files) for image in images) == 120
    assert all(image.captions for image in images)


def test_a_killed_collector_leaves_whole_images_and_the_next_one_goes_on(
    tmp_path: Path, location: StoreLocation
) -> None:
    folder = fill_folder(tmp_path / "pictures", range(300))
    home = tmp_path / "home"
    # Every file takes a moment, so that some are recorded, which is done every 5 s, and the kill falls in the middle.
    code = f"""
import time
from pathlib import PosixPath
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.store.image_store import ImageStore
from sdlora.store.location import StoreLocation
def show(stage, done, total):
    print(done, flush=True)
    time.sleep(0.2)
collect(ImageStore.open({home!r}, {location!r}).dataset("icons"), {str(folder)!r}, DataConfig(), show)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    while int(process.stdout.readline()) < 40:
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with opened_dataset(home, location) as dataset:
        images = dataset.images()
        assert 0 < len(images) < 300
        assert all(image.captions == (f"drawing number {int(image.files[0][-8:-4])}",) for image in images)
        assert all(dataset.store.read_bytes(image.sha256) for image in images)
        report = collect(dataset, str(folder), CONFIG)
        assert (report.new, report.known) == (300 - len(images), len(images))
        assert dataset.counts().total == 300


def test_an_image_that_is_purged_while_its_batch_is_flushed_is_not_recorded_again(
    dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_folder(folder, range(3))
    content = (folder / "0001.png").read_bytes()
    sha256 = dataset.store.dataset("another").add_image(content)
    flush = BlobBatch.flush

    def purge_and_flush(batch: BlobBatch) -> None:
        dataset.store.purge(sha256, "a takedown", "ana")
        flush(batch)

    monkeypatch.setattr(BlobBatch, "flush", purge_and_flush)
    dataset.store.blobs.remove(sha256)  # so that the collection writes the bytes again
    report = collect(dataset, str(folder), CONFIG)
    assert {image.files for image in dataset.images()} == {("pictures/0000.png",), ("pictures/0002.png",)}
    assert (report.new, report.known, report.skipped_count) == (2, 0, 1)
    assert [file.path for file in report.skipped] == ["0001.png"]
    assert "a takedown" in report.skipped[0].reason
    assert not dataset.store.blobs.has(sha256, len(content))


def test_bytes_that_a_clean_up_deletes_before_their_image_is_recorded_are_read_again(
    dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collection finds the bytes of a drawn image stored, and the clean-up knows of no image that needs them."""
    fill_folder(folder, range(3))
    store = dataset.store
    drawn = {"model_version": "ink 1", "prompt": "a ring", "seed": 1, "steps": 2, "guidance_scale": 1.0}
    sha256 = store.add_generation((folder / "0001.png").read_bytes(), **drawn)
    flush = BlobBatch.flush

    def flush_and_clean_up(batch: BlobBatch) -> None:
        flush(batch)
        monkeypatch.setattr(BlobBatch, "flush", flush)
        with store.write() as session:
            drop_drawn_images(session, [sha256])
        store.delete_unreferenced()

    monkeypatch.setattr(BlobBatch, "flush", flush_and_clean_up)
    report = collect(dataset, str(folder), CONFIG)
    assert (report.files, report.new, report.skipped_count) == (3, 3, 0)
    assert all(store.read_bytes(image.sha256) for image in dataset.images())
    assert len(dataset.images()) == 3


@pytest.mark.parametrize("kind", ["image", "drawn image"])
def test_bytes_that_a_clean_up_deletes_before_their_row_is_written_are_stored_again(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    store, content = dataset.store, encoded(drawing(0, side_px=16))
    drawn = {"model_version": "ink 1", "prompt": "a ring", "seed": 1, "steps": 2, "guidance_scale": 1.0}
    sha256 = store.add_generation(content, **drawn)
    with store.write() as session:
        drop_drawn_images(session, [sha256])
    write = store.write

    def clean_up_and_write() -> AbstractContextManager[Session]:
        monkeypatch.setattr(store, "write", write)
        store.delete_unreferenced()
        return write()

    monkeypatch.setattr(store, "write", clean_up_and_write)
    if kind == "image":
        dataset.add_image(content)
    else:
        store.add_generation(content, **drawn)
    assert store.read_bytes(sha256) == content
