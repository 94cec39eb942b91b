"""Receiver of announcements: `POST /v1/arrived` says that a source that a style names has new images.

It takes no images and no addresses of its own. It listens on loopback only. The token opens nothing else. A request
needs

- the header `Authorization: Bearer TOKEN`
- a body of JSON, `{"source": ADDRESS}` or `{"style": NAME}`
- the headers `Idempotency-Key`, a text that no other request has, and `X-Request-Time`, seconds since 1970. A second
  request with the same key, and one whose time is more than five minutes off or before the start of the receiver, is
  taken for a replay. Keys are kept whatever the clock says, so one that is set back opens nothing.
"""

from __future__ import annotations

import hmac
import json
import logging
import math
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

PATH = "/v1/arrived"
MAX_BODY_BYTES = 4096
WINDOW_SECONDS = 300.0
MAX_KEY_CHARS = 200
_MAX_KEYS = 10_000  # more announcements within two windows are refused
_log = logging.getLogger("sdlora.watcher")


class Refusal(Exception):
    """Refusal of a request: its status, and what the caller may know of the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Receiver:
    """ASGI application with one path.

    Args:
        announce: takes the address of a source or the name of a style; returns False if no style has it.
        token: the only token that is accepted.
        hosts: values of the header `Host` that are accepted.
        clock: seconds since 1970.
        max_keys: keys that are kept. When the oldest is forgotten, requests as old as its own count as replays.
    """

    def __init__(
        self,
        announce: Callable[[str], bool],
        token: str,
        hosts: frozenset[str],
        clock: Callable[[], float] = time.time,
        max_keys: int = _MAX_KEYS,
    ) -> None:
        if not token:
            raise ValueError("The receiver needs a token: an empty one would let everybody in.")
        self._announce, self._token, self._hosts, self._clock = announce, token, hosts, clock
        self._max_keys = max_keys
        self._taken_until = clock()  # the time of every request that may be new is later
        self._keys: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope, receive)
        try:
            await self._take(request)
            answer = JSONResponse({"status": "the source will be read"}, 202)
        except Refusal as refusal:
            answer = JSONResponse({"error": refusal.reason}, refusal.status)
            if refusal.status == 401:
                answer.headers["WWW-Authenticate"] = "Bearer"
        # The rest of a refused body stays unread, so the connection cannot be used again.
        answer.headers["Connection"] = "close"
        await answer(scope, receive, send)

    async def _take(self, request: Request) -> None:
        if request.headers.getlist("host") not in [[host] for host in self._hosts]:
            raise Refusal(403, "This host is not served.")
        if "origin" in request.headers:  # only browsers send it, and no page of ours calls the receiver
            raise Refusal(403, "Pages may not call this.")
        self._authorize(request.headers.getlist("authorization"))
        if request.url.path != PATH:
            raise Refusal(404, "There is nothing here.")
        if request.method != "POST":
            raise Refusal(405, "Only POST is served.")
        name = _name_in(await _body(request))
        self._refuse_replay(request)
        if not self._announce(name):
            raise Refusal(404, "No style with a trigger has this source or name.")

    def _authorize(self, given: list[str]) -> None:
        expected = f"Bearer {self._token}".encode()
        value = given[0].encode("utf-8", "surrogateescape") if len(given) == 1 else b""
        if not hmac.compare_digest(value, expected):
            raise Refusal(401, "A token is needed.")

    def _refuse_replay(self, request: Request) -> None:
        key = request.headers.get("idempotency-key", "")
        if not key or len(key) > MAX_KEY_CHARS:
            raise Refusal(400, f"The header Idempotency-Key is needed, of 1 to {MAX_KEY_CHARS} characters.")
        try:
            sent_at = float(request.headers.get("x-request-time", ""))
        except ValueError:
            raise Refusal(400, "The header X-Request-Time is needed, in seconds since 1970.") from None
        now = self._clock()
        if not abs(now - sent_at) <= WINDOW_SECONDS or sent_at < self._taken_until:
            raise Refusal(409, "The request is too old, or its time is wrong. Send it with the present time.")
        if key in self._keys:
            raise Refusal(409, "This request was taken before.")
        if len(self._keys) >= self._max_keys:
            self._forget_oldest()
        self._keys[key] = (sent_at, time.monotonic())

    def _forget_oldest(self) -> None:
        """Make room for a key. A replay of the forgotten request has an old time, also after a clock was set back."""
        sent_at, taken_at = next(iter(self._keys.values()))
        if time.monotonic() - taken_at < 2 * WINDOW_SECONDS:
            raise Refusal(429, "Too many requests.")
        self._keys.popitem(last=False)
        self._taken_until = max(self._taken_until, math.nextafter(sent_at, math.inf))


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise Refusal(413, f"A body of at most {MAX_BODY_BYTES} bytes is taken.")
    return body


def _name_in(body: bytes) -> str:
    try:
        content: Any = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and len(content) == 1:
        (key, name), *_ = content.items()
        if key in ("source", "style") and isinstance(name, str) and name:
            return name
    raise Refusal(400, 'A body such as {"source": "s3://bucket/folder"} or {"style": "comics"} is expected.')


def serve(announce: Callable[[str], bool], token: str, listener: socket.socket) -> uvicorn.Server:
    """Serve in a thread of this process.

    Args:
        listener: socket that listens on 127.0.0.1.
    """
    port = listener.getsockname()[1]
    hosts = frozenset(f"{host}:{port}" for host in ("127.0.0.1", "localhost"))
    settings = uvicorn.Config(
        Receiver(announce, token, hosts),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        limit_concurrency=32,
        timeout_keep_alive=5,
        h11_max_incomplete_event_size=16_384,
    )
    server = uvicorn.Server(settings)
    threading.Thread(target=server.run, args=([listener],), name="receiver", daemon=True).start()
    _log.info("The receiver listens at port %d.", port)
    return server
