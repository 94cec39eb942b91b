"""Local server that receives what sdlora sends to people: a real address on loopback."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.waiting import wait_until

SECRET = "SECRETtoken1234567890"
PARAMETER = "HIDDENvalue1234567890"


@dataclass
class Webhook:
    """Received requests; `status` and `headers` are what the server answers."""

    port: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook/{SECRET}?key={PARAMETER}"

    @property
    def titles(self) -> list[str]:
        return [body["title"] for _, _, body in self.requests if "title" in body]

    @property
    def texts(self) -> list[str]:
        return [body["message"] for _, _, body in self.requests if "message" in body]

    def wait_for(self, title: str) -> str:
        """Wait for a message whose title contains a text; return its body."""

        def found() -> dict[str, Any] | None:
            return next((body for _, _, body in list(self.requests) if title in body.get("title", "")), None)

        return str(wait_until(found, f"the message {title!r}")["message"])

    def wait_for_call(self, part: str) -> None:
        """Wait for a GET whose path contains a text."""
        wait_until(
            lambda: any(method == "GET" and part in path for method, path, _ in list(self.requests)),
            f"a call of {part}",
        )


@contextmanager
def webhook() -> Iterator[Webhook]:
    received = Webhook()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            received.requests.append((self.command, self.path, json.loads(content or "{}")))
            self.send_response(received.status)
            for name, value in received.headers.items():
                self.send_header(name, value)
            self.end_headers()

        do_POST = do_GET  # noqa: N815  # the server calls it by this name

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
