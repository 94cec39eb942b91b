"""Every test runs as on a fresh machine: no settings from the environment, no hub, no telemetry, no outside network."""

from __future__ import annotations

import atexit
import ipaddress
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator

import hypothesis
import pytest

from tests.distribution import FilesAndGroups, distribute

# A shell starts its background jobs with Ctrl-C ignored, and their children inherit it; tests send that signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Before anything imports a library that reads its settings at import.
for _name in [name for name in os.environ if name.startswith(("SDLORA_", "PREFECT_", "MLFLOW_", "HF_"))]:
    del os.environ[_name]
_state = tempfile.mkdtemp(prefix="sdlora-tests-")
atexit.register(shutil.rmtree, _state, ignore_errors=True)
os.environ.update(
    {
        "HF_HOME": f"{_state}/huggingface",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PREFECT_HOME": f"{_state}/prefect",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # Starting a temporary server takes longer than the default 20 s where two cores are busy.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "600",
        "DO_NOT_TRACK": "1",
    }
)

# Two processes of tests share the cores. Threads that wait for each other on a busy core take many times as long.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
# A property holds on a slow machine, too: no example and no strategy has a time limit.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")
# The width of the terminal that started the tests is not that of the commands under test.
os.environ.pop("COLUMNS", None)


@pytest.fixture(autouse=True)
def _commands_leave_nothing_behind() -> Iterator[None]:
    """What a command sets for its own process must not reach the next test: variables, and the patience of clients."""
    variables, patient = _variables_of_commands(), _clients_that_wait()
    yield
    for name in _variables_of_commands():
        del os.environ[name]
    os.environ.update(variables)
    for client in _clients_that_wait() - patient:
        client.send = client.send.__wrapped__


def _variables_of_commands() -> dict[str, str]:
    # Not those of other libraries: fixtures of a whole session set some of them, such as the address of an S3 server.
    ours = ("SDLORA_", "PREFECT_", "MLFLOW_", "MALLOC_")
    return {name: value for name, value in os.environ.items() if name.startswith(ours)}


def _clients_that_wait() -> set[type]:
    module = sys.modules.get("prefect.client.base")
    if module is None:
        return set()
    clients = {module.PrefectHttpxSyncClient, module.PrefectHttpxAsyncClient}
    return {client for client in clients if hasattr(client.send, "__wrapped__")}


@pytest.fixture(autouse=True)
def _handlers_of_signals_stay() -> Iterator[None]:
    """A test that fails before it puts a handler back must not make the next ones deaf to signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _no_outside_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for another machine fails at once and by name instead of hanging or passing by luck."""
    for method in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, method, _loopback_only(getattr(socket.socket, method)))


def _loopback_only(connect):
    def checked(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            raise OSError(f"A test may not connect to {address[0]}.")
        return connect(self, address)

    return checked


def _is_loopback(host: str) -> bool:
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "xdist_group(name): tests of one process of xdist; known without xdist, too")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    distribute(items)


@pytest.hookimpl(optionalhook=True)  # pytest runs without xdist, too
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> FilesAndGroups | None:
    return FilesAndGroups(config, log) if config.getoption("dist") == "loadgroup" else None
