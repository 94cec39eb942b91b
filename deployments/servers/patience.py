"""Patience of a run with its servers: what is away for some minutes is waited for.

By default Prefect's client gives up after 62 s, and a client that has never been connected at once. MLflow's client
retries by its own settings, and the image database by `SDLORA_PATIENCE_SECONDS`. Only runs are patient: a person who
waits for a command has to hear of a missing server soon.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from sdlora.core.errors import ConfigError
from sdlora.store.location import PATIENCE

PATIENCE_SECONDS = 600.0
"""Twice the longest outage that a run has to survive: five minutes."""
_POLL_SECONDS = 2.0
_REACH_SECONDS = 10.0
_BUSY = 503
"""Prefect's answer to a request that its database could not write. Its client repeats that for some seconds only."""

_logger = logging.getLogger(__name__)
_is_over = threading.Event()


def patient_environment() -> dict[str, str]:
    """Return variables for the processes of a run, unless the user has set them."""
    variables = {
        PATIENCE: f"{PATIENCE_SECONDS:.0f}",
        # Waits of 0, 4, 8, 16, 32, 64 and three times 120 s: 484 s in all.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "9",
        # Longer waits within the client; this module repeats its requests.
        "PREFECT_CLIENT_MAX_RETRIES": "2",
    }
    return {name: os.environ.get(name, value) if name == PATIENCE else value for name, value in variables.items()}


def lose_patience() -> None:
    """Let no Prefect client of this process wait any longer: its server will not come back."""
    _is_over.set()


def wait_for_prefect(seconds: float | None = None) -> None:
    """Let every Prefect client of this process repeat a request for up to `seconds` while its server is away.

    Prefect's own retries cannot be set to this: they double their waits, and a new client has none. Events, which carry
    the states of tasks, are kept and sent to the returned server.
    """
    from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient
    from prefect.events.clients import PrefectEventsClient
    from prefect.events.worker import EventsWorker

    if seconds is None:
        seconds = float(os.environ.get(PATIENCE) or PATIENCE_SECONDS)
    if hasattr(PrefectHttpxSyncClient.send, "__wrapped__"):  # done already
        return
    # No setting of Prefect adds a transport to the clients that Prefect makes itself.
    setattr(PrefectHttpxSyncClient, "send", _patient(PrefectHttpxSyncClient.send, seconds))  # noqa: B010
    setattr(PrefectHttpxAsyncClient, "send", _patient_async(PrefectHttpxAsyncClient.send, seconds))  # noqa: B010
    EventsWorker.set_client_override(PrefectEventsClient, reconnection_attempts=int(seconds))  # one a second


def _patient(send: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    import httpx

    def patient_send(*arguments: Any, **options: Any) -> Any:
        outage = _Outage(seconds)
        while True:
            try:
                return send(*arguments, **options)
            except (httpx.TransportError, httpx.HTTPStatusError) as error:
                outage.require_patience(error)
            time.sleep(_POLL_SECONDS)

    patient_send.__wrapped__ = send  # type: ignore[attr-defined]
    return patient_send


def _patient_async(send: Callable[..., Awaitable[Any]], seconds: float) -> Callable[..., Awaitable[Any]]:
    import httpx

    async def patient_send(*arguments: Any, **options: Any) -> Any:
        outage = _Outage(seconds)
        while True:
            try:
                return await send(*arguments, **options)
            except (httpx.TransportError, httpx.HTTPStatusError) as error:
                outage.require_patience(error)
            await asyncio.sleep(_POLL_SECONDS)

    patient_send.__wrapped__ = send  # type: ignore[attr-defined]
    return patient_send


class _Outage:
    """Time since the first failure of a request. The clock is monotonic: a changed date does not end the patience."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline: float | None = None

    def require_patience(self, error: Exception) -> None:
        """Raise `error` if the patience is over, if no server could ever be reached, or if it is an answer."""
        import httpx

        if _is_over.is_set() or isinstance(error, httpx.UnsupportedProtocol):
            raise error
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code != _BUSY:
            raise error
        if self._deadline is None:
            self._deadline = time.monotonic() + self._seconds
            _logger.warning("The Prefect server is away or busy; waiting for up to %.0f s", self._seconds)
        elif time.monotonic() >= self._deadline:
            raise error


def require_reachable(variable: str) -> None:
    """Ask the server once that a variable of the user names, before a run would wait for it.

    Raises:
        ConfigError: nothing answers at the address.
    """
    address = os.environ.get(variable, "")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        return
    # Without credentials: any answer will do. By the proxy of the environment, if there is one.
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    try:
        urllib.request.urlopen(bare, timeout=_REACH_SECONDS).close()  # noqa: S310  # http or https
    except urllib.error.HTTPError:
        return
    except OSError as error:
        raise ConfigError(
            f"No server answers at {bare} ({variable}): {getattr(error, 'reason', error)}. Start the server, or remove "
            "the variable; the same command continues."
        ) from error
