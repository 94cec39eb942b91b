from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from deployments.prefect_api import PrefectApi
from deployments.services import ServiceError


class Busy(BaseHTTPRequestHandler):
    """Busy twice, then it answers; of what is missing it says so at once."""

    asked = 0

    def do_GET(self) -> None:
        Busy.asked += 1
        code = 404 if "nowhere" in self.path else 503 if Busy.asked <= 2 else 200
        self.send_response(code)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Busy.asked = 0
    server = HTTPServer(("127.0.0.1", 0), Busy)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_that_is_busy_with_its_own_start_is_asked_again(url: str) -> None:
    PrefectApi(url).ensure_process_pool("local")
    assert Busy.asked == 3


def test_a_refusal_for_good_is_told_at_once(url: str) -> None:
    with pytest.raises(ServiceError, match="refused GET deployments/name/nowhere: 404"):
        PrefectApi(url).set_parameters("nowhere", {})
    assert Busy.asked == 1
