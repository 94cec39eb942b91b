"""A run waits for servers that are away; a mistyped address is told at once."""

from __future__ import annotations

import asyncio
import http.server
import threading
from types import SimpleNamespace

import httpx
import pytest
from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from deployments.servers import patience
from deployments.servers.patience import _patient, _patient_async, patient_environment, require_reachable
from deployments.servers.services import free_port
from sdlora.core.errors import ConfigError
from tests.outages import Forwarder, Waits


class Health(http.server.BaseHTTPRequestHandler):
    busy = 0
    """Number of the next requests that find a busy database."""

    def do_GET(self) -> None:
        status = 503 if Health.busy else 200 if "health" in self.path else 401
        Health.busy = max(0, Health.busy - 1)
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def forwarder():
    Health.busy = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        forwarder = Forwarder(server.server_port)
        yield forwarder
        forwarder.cut()
        server.shutdown()


@pytest.fixture
def waits(monkeypatch):
    clock = Waits()
    monkeypatch.setattr(patience, "time", clock)
    monkeypatch.setattr(patience, "asyncio", SimpleNamespace(sleep=clock.sleep_async))
    return clock


def test_a_new_client_of_prefect_waits_for_a_server_that_is_away(forwarder, waits, monkeypatch):
    url = f"http://127.0.0.1:{forwarder.port}/api/health"
    forwarder.cut()
    with PrefectHttpxSyncClient() as client, pytest.raises(httpx.ConnectError):
        client.get(url)  # what Prefect does by itself
    monkeypatch.setattr(PrefectHttpxSyncClient, "send", _patient(PrefectHttpxSyncClient.send, 30))
    waits.at_first = forwarder.restore
    with PrefectHttpxSyncClient() as client:
        assert client.get(url).text == "ok"
    assert len(waits.seconds) == 1


def test_an_asynchronous_client_waits_too(forwarder, waits, monkeypatch):
    monkeypatch.setattr(PrefectHttpxAsyncClient, "send", _patient_async(PrefectHttpxAsyncClient.send, 30))

    async def ask() -> str:
        async with PrefectHttpxAsyncClient() as client:
            return (await client.get(f"http://127.0.0.1:{forwarder.port}/api/health")).text

    forwarder.cut()
    waits.at_first = forwarder.restore
    assert asyncio.run(ask()) == "ok"
    assert len(waits.seconds) == 1


def test_a_server_whose_database_is_busy_is_asked_again(forwarder, waits, monkeypatch):
    url = f"http://127.0.0.1:{forwarder.port}/api/health"
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        Health.busy = 1
        with PrefectHttpxSyncClient() as client, pytest.raises(httpx.HTTPStatusError, match="503"):
            client.get(url)  # what Prefect does after its retries
        monkeypatch.setattr(PrefectHttpxSyncClient, "send", _patient(PrefectHttpxSyncClient.send, 30))
        monkeypatch.setattr(PrefectHttpxAsyncClient, "send", _patient_async(PrefectHttpxAsyncClient.send, 30))
        Health.busy = 2
        with PrefectHttpxSyncClient() as client:
            assert client.get(url).text == "ok"
            with pytest.raises(httpx.HTTPStatusError, match="401"):
                client.get(url.replace("health", "other"))  # an answer, which no patience changes

        async def ask() -> str:
            async with PrefectHttpxAsyncClient() as client:
                return (await client.get(url)).text

        Health.busy = 2
        assert asyncio.run(ask()) == "ok"
    assert len(waits.seconds) == 4


def test_patience_ends(waits, monkeypatch):
    monkeypatch.setattr(PrefectHttpxSyncClient, "send", _patient(PrefectHttpxSyncClient.send, 30))
    with PrefectHttpxSyncClient() as client, pytest.raises(httpx.ConnectError):
        client.get(f"http://127.0.0.1:{free_port()}/")
    assert 30 <= sum(waits.seconds) <= 30 + waits.seconds[-1]


def test_an_address_that_no_client_can_use_is_not_waited_for(waits, monkeypatch):
    monkeypatch.setattr(PrefectHttpxSyncClient, "send", _patient(PrefectHttpxSyncClient.send, 30))
    with PrefectHttpxSyncClient() as client, pytest.raises(httpx.UnsupportedProtocol):
        client.get("mail://127.0.0.1/")
    assert waits.seconds == []


def test_a_mistyped_server_of_the_user_is_told_before_a_run_without_its_password(forwarder, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port()}")
    with pytest.raises(ConfigError, match=r"No server answers at http://127.* \(MLFLOW_TRACKING_URI\)") as caught:
        require_reachable("MLFLOW_TRACKING_URI")
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{forwarder.port}")
    require_reachable("MLFLOW_TRACKING_URI")  # 401 is an answer
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    require_reachable("MLFLOW_TRACKING_URI")


def test_the_patience_of_a_user_wins(monkeypatch):
    assert patient_environment()["SDLORA_PATIENCE_SECONDS"] == "600"
    monkeypatch.setenv("SDLORA_PATIENCE_SECONDS", "30")
    assert patient_environment()["SDLORA_PATIENCE_SECONDS"] == "30"
