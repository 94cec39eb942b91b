"""One deadline for each item, whatever a host or a store does to take longer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.sources import UnreadableItemError, download
from sdlora.data.sources.download import Downloader
from sdlora.data.threads import TryLaterError
from sdlora.store.dataset import Dataset
from tests.unit.data.drawing import drawing, encoded
from tests.waiting import PATIENCE_SECONDS

CONFIG = DataConfig(allow_private_addresses=True, url_timeout_seconds=20.0, url_total_seconds=0.8, url_retries=3)
LATE = "not complete after url_total_seconds = 0.8"
# Where another item has to be complete in time, on a busy machine too.
LONGER = CONFIG.model_copy(update={"url_total_seconds": 3.0})
LATE_THEN = "not complete after url_total_seconds = 3"
PICTURE = encoded(drawing(1))
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(PICTURE) + PICTURE


@contextmanager
def serving(talk: Callable[[socket.socket, bytes], None]) -> Iterator[int]:
    """Serve on loopback: `talk` gets each connection and the first bytes of its request. Yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                talk(connection, connection.recv(65536))

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]


def drip(connection: socket.socket, start: bytes) -> None:
    """Send a byte each tenth of a second, for ever: no single wait is long."""
    connection.sendall(start)
    while True:
        connection.sendall(b"x")
        time.sleep(0.1)


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
    ],
    ids=["status", "headers", "body", "chunk"],
)
def test_a_host_that_sends_a_byte_at_a_time_has_one_deadline(dataset: Dataset, folder: Path, start: bytes) -> None:
    def talk(connection: socket.socket, request: bytes) -> None:
        if b"/good" in request:
            connection.sendall(GOOD)
        else:
            drip(connection, start)

    with serving(talk) as port:
        (folder / "urls.txt").write_text(f"http://127.0.0.1:{port}/slow.png\nhttp://127.0.0.1:{port}/good.png\n")
        report = collect(dataset, str(folder / "urls.txt"), LONGER)  # or it would never end
    assert (report.new, [skipped.reason for skipped in report.skipped]) == (1, [LATE_THEN])


@contextmanager
def waiting() -> Iterator[Callable[..., bool]]:
    """Function that returns when the block has ended: a block that waited for it would not end for minutes."""
    ended = threading.Event()
    try:
        yield lambda *_: ended.wait(PATIENCE_SECONDS)
    finally:
        ended.set()


def test_redirects_do_not_begin_the_deadline_again() -> None:
    def talk(connection: socket.socket, _: bytes) -> None:
        time.sleep(0.3)
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")
        time.sleep(0.1)

    with serving(talk) as port, pytest.raises(UnreadableItemError, match=LATE):
        Downloader(CONFIG).fetch(f"http://127.0.0.1:{port}/a.png")


def test_neither_a_handshake_nor_a_resolver_waits_for_longer() -> None:
    with waiting() as wait, serving(wait) as port, pytest.raises(UnreadableItemError, match=LATE):
        Downloader(CONFIG).fetch(f"https://127.0.0.1:{port}/a.png")

    with waiting() as wait, pytest.raises(UnreadableItemError, match=LATE):
        Downloader(CONFIG, lambda *_: wait() and []).fetch("http://host.example/a.png")


def test_all_tries_and_all_signatures_of_one_file_share_the_deadline() -> None:
    def talk(connection: socket.socket, _: bytes) -> None:
        time.sleep(0.3)
        connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    with serving(talk) as port:
        downloader = Downloader(CONFIG.model_copy(update={"url_retries": 9}))
        ends = []
        while not ends or isinstance(ends[-1], TryLaterError):
            with pytest.raises((TryLaterError, UnreadableItemError)) as caught:
                downloader.fetch(f"http://127.0.0.1:{port}/a.png")
            ends.append(caught.value)
        assert str(ends[-1]) == LATE  # "10 times" if each try had a deadline of its own
        assert len(ends) <= 3  # two tries of at least 0.3 s, and the last one

    def refuse(connection: socket.socket, _: bytes) -> None:
        time.sleep(0.3)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with serving(refuse) as port:
        urls = [f"http://127.0.0.1:{port}/a.png?sig={number}" for number in range(9)]
        with pytest.raises(UnreadableItemError, match=LATE):
            Downloader(CONFIG).fetch(urls[-1], older=urls[:-1])


def test_a_host_that_is_always_late_is_left_alone(
    dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "MAX_HOST_FAILURES", 2)
    config = CONFIG.model_copy(update={"url_total_seconds": 0.2, "url_per_host": 1})
    with serving(lambda connection, _: drip(connection, b"")) as port:
        (folder / "urls.txt").write_text("".join(f"http://127.0.0.1:{port}/{number}.png\n" for number in range(9)))
        report = collect(dataset, str(folder / "urls.txt"), config)
    assert [("in a row" in skipped.reason) for skipped in report.skipped] == [False] * 2 + [True] * 7


def test_a_store_that_never_answers_costs_the_item(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    fs, real = MemoryFileSystem(), MemoryFileSystem._open
    for name in ("silent.png", "good.png"):
        fs.pipe_file(f"/never/{name}", PICTURE)

    def open_or_wait(self: MemoryFileSystem, path: str, mode: str = "rb", **options: object) -> object:
        if path.endswith("silent.png"):
            wait()
        return real(self, path, mode, **options)

    monkeypatch.setattr(MemoryFileSystem, "_open", open_or_wait)
    with waiting() as wait:
        report = collect(dataset, "memory://never", LONGER)
    fs.rm("/never", recursive=True)
    assert (report.new, [skipped.reason for skipped in report.skipped]) == (1, [LATE_THEN])
