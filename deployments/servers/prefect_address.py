"""Prefect server of a state folder for a command that is no run: the running one, else one of the command's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deployments.local_run import prefect_server, prepare_environment
from deployments.servers.credentials import credentials_of
from deployments.servers.running import require_current, running_services


@contextmanager
def reachable_prefect(home: Path, log_name: str) -> Iterator[None]:
    """Let this process use the Prefect server that the runs of `home` use, for the length of the block.

    The server is the one that `PREFECT_API_URL` names, else that of a running `sdlora up`, else a new one on the
    database of the state folder. Import nothing of Prefect before the block.
    """
    running = None if "PREFECT_API_URL" in os.environ else running_services(home)
    if running is None:
        with prefect_server(home, log_name) as server:
            server.wait_ready()
            yield
        return
    credentials = credentials_of(home)
    require_current(running["prefect"], credentials)
    prepare_environment(home)
    os.environ.update(credentials.for_prefect_clients())
    os.environ["PREFECT_API_URL"] = f"{running['prefect']}/api"
    yield
