"""What holds of a store on PostgreSQL and S3 beside what every store does."""

from __future__ import annotations

import multiprocessing
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import s3fs
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, make_url, select

from sdlora.core.errors import ConfigError, DataError, StorageError
from sdlora.store import database as database_module
from sdlora.store.blobs import BlobStore
from sdlora.store.database import open_database
from sdlora.store.datasets import make_dataset
from sdlora.store.image_store import ImageStore
from sdlora.store.location import StoreLocation
from sdlora.store.tables.base import Base
from sdlora.store.tables.datasets import DatasetTable
from sdlora.store.tables.images import ImageTable
from tests.outages import Forwarder, Waits
from tests.servers import PASSWORD, new_database, new_folder
from tests.waiting import PATIENCE_SECONDS


def _add(home: Path, location: StoreLocation, start: object, numbers: range) -> None:
    with ImageStore.open(home, location) as store:
        start.wait()
        for number in numbers:
            store.dataset("icons").add_image(f"image {number}".encode(), [f"caption {number}"])


def test_the_baseline_makes_the_tables_of_the_code(postgres: str) -> None:
    database = open_database(new_database(postgres))
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    database.close()


def test_machines_that_collect_the_same_images_at_once_double_none_and_lose_none(
    tmp_path: Path, postgres: str, s3: str
) -> None:
    # The database is empty: they migrate it at the same moment, too.
    location = StoreLocation(new_database(postgres), new_folder(s3))
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Event()
    workers = [spawn.Process(target=_add, args=(tmp_path, location, start, span)) for span in (range(8), range(4, 12))]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    with ImageStore.open(tmp_path, location) as store:
        images = store.dataset("icons").images()
        assert sorted(image.captions[0] for image in images) == sorted(f"caption {number}" for number in range(12))
        assert all(store.read_bytes(image.sha256).startswith(b"image") for image in images)


def test_a_writer_waits_for_the_one_before_and_sees_what_it_recorded(postgres: str, migrated: str) -> None:
    database = open_database(new_database(postgres, migrated))
    counted = select(func.count()).select_from(DatasetTable)
    seen = []

    def second() -> None:
        with database.write() as session:
            seen.append(session.scalar(counted))

    with database.write() as session:
        make_dataset(session, "first")
        other = threading.Thread(target=second, daemon=True)
        other.start()
        other.join(timeout=0.5)
        assert other.is_alive()
        assert seen == []
    other.join(timeout=PATIENCE_SECONDS)
    assert seen == [1]
    database.close()


def test_a_reader_sees_one_state_and_cannot_write(postgres: str, migrated: str) -> None:
    database = open_database(new_database(postgres, migrated))
    counted = select(func.count()).select_from(DatasetTable)
    with database.read() as reader:
        assert reader.scalar(counted) == 0
        with database.write() as writer:
            make_dataset(writer, "name")
        assert reader.scalar(counted) == 0
    with pytest.raises(StorageError, match="read-only"), database.read() as reader:
        make_dataset(reader, "other")
    database.close()


def test_a_server_that_refuses_is_named_with_the_remedy_and_without_the_password(postgres: str) -> None:
    wrong = postgres.replace(PASSWORD, "a-guess-at-it")
    with pytest.raises(StorageError, match=r"sdlora:\*\*\*@127.*Correct user, password") as caught:
        open_database(f"{wrong}/postgres")
    assert "a-guess-at-it" not in str(caught.value)
    with pytest.raises(StorageError, match="database name in SDLORA_DATABASE_URL"):
        open_database(f"{postgres}/not_there")


def test_a_server_that_does_not_answer_is_named_with_the_remedy() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"postgresql://sdlora:secret@127.0.0.1:{closed.getsockname()[1]}/images"
        with pytest.raises(StorageError, match=r"refused.*Start the server") as caught:
            open_database(address)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["mysql://user:secret@host/name", "user:secret@host"])
def test_an_address_of_another_kind_is_refused_without_its_password(address: str) -> None:
    with pytest.raises(StorageError, match="SDLORA_DATABASE_URL") as caught:
        open_database(address)
    assert "secret" not in str(caught.value)


def test_addresses_of_the_environment_lead_to_the_store(
    tmp_path: Path, postgres: str, migrated: str, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDLORA_DATABASE_URL", new_database(postgres, migrated))
    monkeypatch.setenv("SDLORA_BLOBS_URL", new_folder(s3))
    with ImageStore.open(tmp_path) as store:
        sha256 = store.dataset("icons").add_image(b"bytes")
    with ImageStore.open(tmp_path / "another machine") as store:
        assert store.read_bytes(sha256) == b"bytes"
        with store.read() as session:
            assert session.scalar(select(func.count()).select_from(ImageTable)) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_object_that_was_damaged_is_found_out(s3: str) -> None:
    blobs = BlobStore(new_folder(s3))
    sha256 = blobs.put(b"some bytes")
    assert blobs.get(sha256) == b"some bytes"
    blobs._fs.pipe_file(blobs._path(sha256), b"same bytes")
    with pytest.raises(DataError, match="is damaged"):
        blobs.get(sha256)
    blobs.remove(sha256)
    with pytest.raises(DataError, match="lacks the bytes"):
        blobs.get(sha256)
    blobs.remove(sha256)


class _BusyStore(BaseHTTPRequestHandler):
    """An object store that is too busy for the first two bytes it is given."""

    protocol_version = "HTTP/1.1"  # so that it answers "Expect: 100-continue"
    puts = 0

    def do_HEAD(self) -> None:
        self._answer(404)

    def do_GET(self) -> None:
        self._answer(200, b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>")

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).puts += 1
        self._answer(*((503, b"<Error><Code>SlowDown</Code></Error>") if self.puts < 3 else (200, b"")))

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("ETag", '"0"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def test_a_busy_object_store_is_asked_again(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    del s3
    server = ThreadingHTTPServer(("127.0.0.1", 0), _BusyStore)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    s3fs.S3FileSystem.clear_instance_cache()  # the next one reads the address anew
    try:
        BlobStore("s3://bucket/blobs").put(b"bytes")
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.shutdown()
        server.server_close()
    assert _BusyStore.puts == 3


def test_a_bucket_that_is_not_there_is_named_with_the_remedy(s3: str) -> None:
    del s3
    with pytest.raises(StorageError, match=r"s3://no-such-bucket/blobs cannot store 5 bytes.*AWS_ENDPOINT_URL"):
        BlobStore("s3://no-such-bucket/blobs").put(b"bytes")


def test_a_file_system_that_nobody_knows_is_refused() -> None:
    with pytest.raises(StorageError, match=r"SDLORA_BLOBS_URL = nowhere://bucket"):
        BlobStore("nowhere://bucket")


@pytest.fixture
def forwarded(postgres: str, migrated: str):
    """A forwarder in front of the server, and the address of a database through it."""
    address = make_url(new_database(postgres, migrated))
    assert address.port is not None
    forwarder = Forwarder(address.port)
    yield forwarder, address.set(port=forwarder.port).render_as_string(hide_password=False)
    forwarder.cut()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    clock = Waits()
    monkeypatch.setattr(database_module, "time", clock)
    return clock


def test_a_server_that_is_away_is_waited_for_before_a_transaction(forwarded, waits, caplog) -> None:
    forwarder, address = forwarded
    database = open_database(address, patience_seconds=30)
    with database.write() as session:
        make_dataset(session, "before")
    waits.at_first = forwarder.restore
    for work in (database.read, database.write):
        forwarder.cut()
        waits.seconds.clear()
        with work() as session:
            assert session.scalar(select(func.count()).select_from(DatasetTable)) == 1
        assert len(waits.seconds) == 1
    assert "***@127.0.0.1" in caplog.text
    assert "waiting for up to 30 s" in caplog.text
    database.close()


def test_a_server_is_waited_for_when_the_database_is_opened(forwarded, waits) -> None:
    forwarder, address = forwarded
    waits.at_first = forwarder.restore
    forwarder.cut()
    open_database(address, patience_seconds=30).close()
    assert len(waits.seconds) == 1


def test_a_server_that_stays_away_is_an_error_after_the_patience_and_at_once_without_it(forwarded, waits) -> None:
    forwarder, address = forwarded
    database = open_database(address, patience_seconds=20)
    with forwarder.away():
        for is_patient, seconds in ((True, 20), (False, 0)):
            waits.seconds.clear()
            with pytest.raises(StorageError, match="Start the server"), database.read(waits=is_patient):
                pass
            assert sum(waits.seconds) == seconds
    database.close()


def test_a_transaction_that_loses_its_server_is_rolled_back_and_not_repeated(forwarded) -> None:
    forwarder, address = forwarded
    database = open_database(address, patience_seconds=30)
    runs: list[str] = []

    def work() -> None:
        with database.write() as session:
            runs.append("begun")
            make_dataset(session, "half")
            with forwarder.away():
                session.flush()
            make_dataset(session, "other half")

    with pytest.raises(StorageError, match="Start the server"):
        work()
    assert runs == ["begun"]
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(DatasetTable)) == 0
    database.close()


def test_a_wrong_password_is_not_waited_for(postgres: str, waits: Waits) -> None:
    with pytest.raises(StorageError, match="Correct user, password"):
        open_database(postgres.replace(PASSWORD, "a-guess-at-it") + "/postgres", patience_seconds=30)
    assert waits.seconds == []


def test_the_patience_of_runs_is_a_number_of_seconds(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("SDLORA_PATIENCE_SECONDS", "7.5")
    with ImageStore.open(tmp_path) as store:
        assert store.database.patience_seconds == 7.5
    monkeypatch.setenv("SDLORA_PATIENCE_SECONDS", "long")
    with pytest.raises(ConfigError, match="SDLORA_PATIENCE_SECONDS is 'long'"):
        ImageStore.open(tmp_path)
