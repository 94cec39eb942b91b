"""A server that goes away and returns: a forwarder in front of it, whose port can be closed and opened, and a clock."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator


class Forwarder:
    """Port on 127.0.0.1 that passes connections on to another; while `away`, nothing listens and all are cut."""

    def __init__(self, target: int) -> None:
        self.target, self.connections = target, 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        # Bound for ever and never listening: no other program gets the port while the server is away.
        self._reservation = socket.socket()
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reservation.bind(("127.0.0.1", 0))
        self.port: int = self._reservation.getsockname()[1]
        self._listener: socket.socket | None = None
        self.restore()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.connections += 1
                try:
                    server = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._open |= {client, server}
                    is_cut = self._listener is not listener
                if is_cut:  # in the meantime
                    self._close({client, server})
                    continue
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Cut all connections; new ones are refused until `restore`."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            # A blocked accept() keeps the socket listening until the shutdown.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            ends = set(self._open)
        self._close(ends)

    def _close(self, ends: set[socket.socket]) -> None:
        with self._lock:
            self._open -= ends
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def restore(self) -> None:
        with self._lock:
            self._listener = self._listen(self.port)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Cut at the start of the block, and restore at its end."""
        self.cut()
        try:
            yield
        finally:
            self.restore()


class Waits:
    """Clock of a process that waits for a server: it passes by its sleeps alone."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.at_first: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return sum(self.seconds)

    def sleep(self, seconds: float) -> None:
        if not self.seconds:
            self.at_first()
        self.seconds.append(seconds)

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)
