"""Heartbeat of `sdlora up`: a request to a monitoring service every minute, while all is well.

If the machine, its network or `sdlora up` is dead, no program here can say so. The service that misses the heartbeat
can. The same thread sends messages that runs could not send, and tells runs whose worker could not tell their end.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from prefect.client.orchestration import get_client

from deployments.environment import POOL
from deployments.servers.earlier_runs import flow_processes
from deployments.servers.running import running_services, watcher_works, worker_since
from deployments.servers.services import answers
from tasks.alive import crash_abandoned, crash_killed
from tasks.decisions.aliases import notice_moved_aliases
from tasks.notify.decisions import tell_all_decisions
from tasks.notify.failures import tell_unheard_failures
from tasks.notify.heartbeat import load_heartbeat
from tasks.notify.outbox import deliver
from tasks.notify.sending import redacted, secret_parts, without_secrets_in_logs
from tasks.waiting.page_cancels import record_page_cancels

INTERVAL_SECONDS = 60.0
REQUEST_SECONDS = 10.0
MIN_FREE_BYTES = 2 * 2**30
"""Free space below which a run may end on a full disk."""
_log = logging.getLogger("sdlora.heartbeat")


def start_heartbeat(home: Path, interval_seconds: float = INTERVAL_SECONDS) -> threading.Thread:
    """Start the thread, which ends with its process. Errors go to `logs/heartbeat.log`, once until they change."""
    _log_to_file(home / "logs" / "heartbeat.log")
    thread = threading.Thread(target=_run, args=(home, interval_seconds), name="heartbeat", daemon=True)
    thread.start()
    return thread


def problems(home: Path) -> list[str]:
    """List what is not well: a server that does not answer, no worker or watcher, a disk that is nearly full."""
    running = running_services(home)
    if running is None:
        return ["the servers are not running"]
    found = []
    if not answers(f"{running['prefect']}/api/health"):
        found.append("the Prefect server does not answer")
    elif not _has_worker():
        found.append("no worker answers")
    if not answers(f"{running['mlflow']}/health"):
        found.append("the MLflow server does not answer")
    if not watcher_works(home):
        found.append("the watcher does not work, so new images start no run; its log is logs/watcher.log")
    free_bytes = shutil.disk_usage(home).free
    if free_bytes < MIN_FREE_BYTES:
        found.append(f"only {free_bytes / 2**30:.1f} GiB are free on the disk of the state folder")
    return found


def beat(home: Path) -> list[str]:
    """Send one heartbeat if all is well; return the reasons if none was sent, and nothing without an address."""
    url = load_heartbeat(home)
    if url is None:
        return []
    found = problems(home)
    if found:
        return found
    secrets = secret_parts(url)
    with without_secrets_in_logs(secrets):
        try:
            # No redirection is followed: it would lead to a host that nobody named.
            reply = httpx.get(url, timeout=REQUEST_SECONDS)
        except httpx.HTTPError as error:
            return [f"the monitoring service cannot be reached: {redacted(str(error), secrets)}"]
    return [] if reply.is_success else [f"the monitoring service answered with status {reply.status_code}"]


def _has_worker() -> bool:
    """Return True if Prefect heard of a worker within its last few heartbeats."""
    with get_client(sync_client=True) as client:
        workers = client.read_workers_for_work_pool(POOL)
    return any(str(worker.status.value) == "ONLINE" for worker in workers)


def _run(home: Path, interval_seconds: float) -> None:
    tasks: dict[str, Callable[[Path], object]] = {
        "runs": _look_after_runs,
        "aliases": notice_moved_aliases,
        "decisions": tell_all_decisions,
        "messages": deliver,
        "heartbeat": beat,
    }
    said: dict[str, str] = {}
    while True:
        started_at = time.monotonic()
        for name, task in tasks.items():
            try:
                found = task(home)
                text = "; ".join(found) if isinstance(found, list) else ""
            except Exception as error:  # noqa: BLE001  # the thread outlives every outage of the servers
                text = f"{type(error).__name__}"
            if text != said.get(name, ""):
                _log.warning("%s: %s", name, text or "well again")
            said[name] = text
        time.sleep(max(1.0, interval_seconds - (time.monotonic() - started_at)))


def _look_after_runs(home: Path) -> None:
    crash_killed(home)
    if (since := worker_since(home)) is not None:
        crash_abandoned(home, since, flow_processes(home))
    tell_unheard_failures(home)
    record_page_cancels(home)


def _log_to_file(path: Path) -> None:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    _log.handlers[:] = [handler]
    _log.propagate = False
