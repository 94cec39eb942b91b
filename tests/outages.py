"""A server that goes away and returns: a forwarder in front of it, whose port can be closed and opened."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator


class Forwarder:
    """Port on 127.0.0.1 that passes connections on to another; while `away`, nothing listens and all are cut."""

    def __init__(self, target: int) -> None:
        self.target, self.connections = target, 0
        self._open: set[socket.socket] = set()
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]

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
                self._open |= {client, server}
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
        # A blocked accept() keeps the socket listening until the shutdown.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()

    def restore(self) -> None:
        self._listener = self._listen(self.port)

    @contextlib.contextmanager
    def away(self, seconds: float = 0.0) -> Iterator[None]:
        """Cut at the start of the block, and restore at its end or after `seconds` in the background."""
        self.cut()
        if not seconds:
            try:
                yield
            finally:
                self.restore()
            return
        timer = threading.Thread(target=lambda: (time.sleep(seconds), self.restore()))
        timer.start()
        try:
            yield
        finally:
            timer.join()
