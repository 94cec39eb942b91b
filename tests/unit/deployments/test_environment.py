"""What the environment of a user does not change: who hears what is meant for this machine."""

from __future__ import annotations

import contextlib
import http.server
import os
import subprocess
import sys
import threading

import pytest

from deployments.environment import environment
from deployments.servers.services import answers

SERVER, PROXY = "server", "proxy"
ASK = """
import sys, urllib.request
import httpx, requests
url = sys.argv[1]
httpx.get(url, auth=("sdlora", "password"))
requests.get(url, auth=("sdlora", "password"))
urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": "Basic c2Rsb3JhOnBhc3N3b3Jk"}))
"""


@pytest.fixture
def heard(monkeypatch):
    """The addresses of a server and of the proxy that the environment names, and who of them heard a password."""
    heard: list[str] = []
    with contextlib.ExitStack() as stack:
        addresses = [stack.enter_context(_listening(name, heard)) for name in (SERVER, PROXY)]
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, addresses[1])
        yield addresses[0], heard


@contextlib.contextmanager
def _listening(name: str, heard: list[str]):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(name if "Authorization" in self.headers else f"{name}, no password")
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_no_client_tells_the_password_to_a_proxy(heard, tmp_path):
    server, who = heard
    for own, told in (({}, PROXY), (environment(tmp_path), SERVER)):  # first what the clients do by themselves
        subprocess.run([sys.executable, "-c", ASK, server], env=os.environ | own, check=True)
        assert who == [told] * 3
        who.clear()


def test_whether_a_server_is_ready_is_not_asked_of_a_proxy(heard):
    server, who = heard
    assert answers(server)
    assert who == ["server, no password"]


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        (None, None, "127.0.0.1,localhost"),
        ("intranet, 127.0.0.1", None, "intranet,127.0.0.1,localhost"),
        ("a.example", ".b.example", "a.example,.b.example,127.0.0.1,localhost"),
        (None, "*", "*"),
    ],
)
def test_exceptions_that_a_user_has_named_are_kept(lower, upper, expected, monkeypatch, tmp_path):
    for name, value in (("no_proxy", lower), ("NO_PROXY", upper)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    made = environment(tmp_path)
    assert made["no_proxy"] == made["NO_PROXY"] == expected
    monkeypatch.setattr(os, "environ", os.environ | made)
    assert environment(tmp_path)["no_proxy"] == expected


@pytest.mark.parametrize(("devices", "hidden"), [(None, False), ("auto", False), ("cuda:0", False), ("cpu,cpu", True)])
def test_a_machine_that_trains_on_its_processor_hides_its_gpus(monkeypatch, tmp_path, devices, hidden):
    monkeypatch.delenv("SDLORA_DEVICES", raising=False)
    if devices:
        monkeypatch.setenv("SDLORA_DEVICES", devices)
    assert (environment(tmp_path).get("CUDA_VISIBLE_DEVICES") == "") is hidden
