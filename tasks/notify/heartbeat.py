"""Address of the heartbeat, a secret that a block of Prefect keeps."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import cast

from prefect.blocks.system import Secret
from pydantic import SecretStr

from tasks.notify.addresses import require_safe_scheme, split_url
from tasks.notify.recipients import heartbeat_host, save_heartbeat_host

BLOCK = "sdlora-heartbeat"
EXPECTED = "https://..., as the monitoring service shows it, or http:// to a host of your own network"


def save_heartbeat(home: Path, url: str) -> str:
    """Keep the address; return its host.

    Raises:
        ConfigError: it is no address. The message does not contain it.
    """
    parts = split_url(url, EXPECTED)
    require_safe_scheme(parts, EXPECTED)
    Secret(value=SecretStr(url)).save(BLOCK, overwrite=True, _sync=True)  # type: ignore[call-arg]
    host = parts.hostname or ""
    save_heartbeat_host(home, host)
    return host


def load_heartbeat(home: Path) -> str | None:
    """Return the address; None without a heartbeat. Errors of Prefect's client are passed on."""
    if heartbeat_host(home) is None:
        return None
    block = cast("Secret[str]", Secret.load(BLOCK, _sync=True))  # type: ignore[call-arg]
    return str(block.get())


def forget_heartbeat(home: Path) -> None:
    with suppress(ValueError):
        Secret.delete(BLOCK, _sync=True)  # type: ignore[call-arg]
    save_heartbeat_host(home, None)
