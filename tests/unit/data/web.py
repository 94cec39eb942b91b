"""A real web server for tests, on loopback."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, dict[str, str], bytes]
Page = Answer | Callable[[BaseHTTPRequestHandler], Answer]


class Web:
    """Pages by path; counts what is asked for, and how much of it at the same time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.pages: dict[str, Page] = {}
        self.asked: Counter[str] = Counter()
        self.now = self.most = 0
        self.lock = threading.Lock()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


@contextmanager
def serving() -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with web.lock:
                web.asked[self.path] += 1
                web.now += 1
                web.most = max(web.most, web.now)
            try:
                page = web.pages.get(self.path, (404, {}, b""))
                status, headers, body = page(self) if callable(page) else page
            finally:  # before the answer, after which its client may ask again at once
                with web.lock:
                    web.now -= 1
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), "Content-Type": "image/png", **headers}.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    web = Web(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
