"""The receiver of announcements, by real requests at a real port."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deployments.arrivals import receiver
from deployments.arrivals.receiver import MAX_BODY_BYTES, PATH, WINDOW_SECONDS, Receiver, serve
from deployments.servers.services import listen_at
from tests.waiting import PATIENCE_SECONDS, wait_until

TOKEN = "the-token"


class Running:
    def __init__(self) -> None:
        self.announced: list[str] = []
        listener = listen_at(0, "receiver", "--receiver-port")
        self.port = listener.getsockname()[1]
        self.server = serve(self.take, TOKEN, listener)
        wait_until(lambda: self.server.started, "the start of the receiver")

    def take(self, name: str) -> bool:
        self.announced.append(name)
        return name in ("comics", "/images")

    def ask(
        self, body: Any = None, method: str = "POST", path: str = PATH, key: str | None = None, **headers: Any
    ) -> tuple[int, Any]:
        given = {
            "Host": f"127.0.0.1:{self.port}",
            "Authorization": f"Bearer {TOKEN}",
            "Idempotency-Key": key or uuid4().hex,
            "X-Request-Time": str(time.time()),
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        connection.connect()
        parts: list[bytes] = []
        connection.send = parts.append  # type: ignore[method-assign]
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in given.items():
            if value is not None:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(data)))
        connection.endheaders(data)
        # In one piece: the receiver refuses and closes without the body, and a body that comes later resets the
        # connection, perhaps before the answer is read.
        connection.sock.sendall(b"".join(parts))
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if answer.getheader("content-type") == "application/json" else None


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    one = Running()
    yield one
    one.server.should_exit = True


STYLE = {"style": "comics"}


def test_a_source_or_a_style_is_announced(running):
    assert running.ask(STYLE)[0] == 202
    assert running.ask({"source": "/images"}, Host=f"localhost:{running.port}")[0] == 202
    assert running.announced[-2:] == ["comics", "/images"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": None},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer thé-tökén"},
    ],
)
def test_a_missing_or_wrong_token_is_refused_before_anything_is_told(running, headers):
    before = len(running.announced)
    assert running.ask(STYLE, **headers)[0] == 401
    assert running.ask(STYLE, path="/v1/other", **headers)[0] == 401
    assert len(running.announced) == before


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "", None])
def test_a_foreign_host_is_refused(running, host):
    before = len(running.announced)
    assert running.ask(STYLE, Host=host)[0] in (400, 403)
    assert len(running.announced) == before


def test_a_page_in_a_browser_is_refused(running):
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{running.port}"):
        assert running.ask(STYLE, Origin=origin)[0] == 403


def test_an_oversized_body_is_refused(running):
    assert running.ask({"style": "x" * MAX_BODY_BYTES})[0] == 413


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[" * 3000, b"\xff", b"null", b'"comics"', b"{}", b'{"style": 3}', b'{"style": ""}',
     b'{"style": "comics", "source": "/images"}', b'{"images": "x"}'],
)  # fmt: skip
def test_a_malformed_body_is_refused(running, body):
    assert running.ask(body)[0] == 400


def test_an_unknown_source_and_an_unknown_style_get_the_same_words(running):
    answers = [running.ask({"source": "s3://other"}), running.ask({"style": "other"})]
    assert answers[0] == answers[1] and answers[0][0] == 404


def test_other_paths_and_methods_are_refused(running):
    assert running.ask(STYLE, path="/")[0] == 404
    assert running.ask(STYLE, path=f"{PATH}/")[0] == 404
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH"):
        assert running.ask(STYLE, method=method)[0] == 405


def test_a_replayed_request_is_refused(running):
    now = str(time.time())
    assert running.ask(STYLE, key="k1", X_Request_Time=now)[0] == 202
    assert running.ask(STYLE, key="k1", X_Request_Time=now)[0] == 409
    assert running.ask(STYLE, key="k1")[0] == 409
    old = time.time() - WINDOW_SECONDS - 1
    for wrong in (old, time.time() + 3 * WINDOW_SECONDS, "inf", "-inf", "nan"):
        assert running.ask(STYLE, X_Request_Time=str(wrong))[0] == 409
    for headers in ({"X_Request_Time": None}, {"X_Request_Time": "noon"}, {"Idempotency_Key": "x" * 201}):
        assert running.ask(STYLE, **headers)[0] == 400
    assert running.ask(STYLE, Idempotency_Key=None)[0] == 400


def test_a_request_from_before_the_start_is_a_replay(running):
    moment = time.time()
    later = Running()
    try:
        assert later.ask(STYLE, X_Request_Time=str(moment))[0] == 409
    finally:
        later.server.should_exit = True


class Clocked:
    """A receiver whose clock a test sets, asked without a port."""

    def __init__(self, max_keys: int) -> None:
        self.now = 1_000_000.0
        self.receiver = Receiver(lambda _: True, TOKEN, frozenset({"receiver"}), lambda: self.now, max_keys)

    def ask(self, key: str, sent_at: float) -> int:
        headers = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": key, "X-Request-Time": str(sent_at)}

        async def post() -> int:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.receiver)) as client:
                return (await client.post(f"http://receiver{PATH}", json=STYLE, headers=headers)).status_code

        return asyncio.run(post())


def test_a_clock_that_is_set_back_an_hour_lets_no_replay_in():
    clocked = Clocked(max_keys=9)
    start = clocked.now
    assert clocked.ask("k1", start + 60) == 202
    clocked.now = start + 900
    assert clocked.ask("k2", clocked.now) == 202  # the window of the first request is over
    clocked.now -= 3600
    assert clocked.ask("k1", start + 60) == 409  # too far from the clock's time
    clocked.now = start + 60  # which reaches the request's time for the second time
    assert clocked.ask("k1", start + 60) == 409
    assert clocked.ask("k3", clocked.now) == 202


def test_keys_that_are_forgotten_for_want_of_room_let_no_replay_in(monkeypatch):
    clocked, steady = Clocked(max_keys=2), [0.0]
    monkeypatch.setattr(receiver, "time", SimpleNamespace(monotonic=lambda: steady[0]))
    start = clocked.now
    assert [clocked.ask(key, start + number) for number, key in enumerate("abc")] == [202, 202, 429]
    steady[0] = clocked.now = start + 900
    assert clocked.ask("c", clocked.now) == 202  # "a" is forgotten
    clocked.now = start
    assert clocked.ask("a", start) == 409
    assert clocked.ask("d", start) == 409


def test_an_empty_token_lets_nobody_in():
    with pytest.raises(ValueError, match="needs a token"):
        Receiver(lambda _: True, "", frozenset())


def test_an_older_file_of_credentials_gets_a_token_and_keeps_the_rest(tmp_path):
    from deployments.servers.credentials import FILE, credentials_of

    first = credentials_of(tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    del content["receiver_token"]
    (tmp_path / FILE).write_text(json.dumps(content))
    again = credentials_of(tmp_path)
    assert again.receiver_token and again.password == first.password and again == credentials_of(tmp_path)
    assert again.receiver_token not in repr(again)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
