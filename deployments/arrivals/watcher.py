"""Process of `sdlora up` that watches and polls the sources of styles with a trigger, and starts their runs.

python -m deployments.arrivals.watcher [--receiver] [--config FILE]    # SDLORA_HOME, PREFECT_API_URL are set

Nothing is remembered in the process: the database has all that decides. After a kill the next process reads every
source once, so no arrival is missed, and the keys of starts see to it that no run is made twice.
"""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deployments.arrivals.local_sources import SETTLE_SECONDS, LocalSources
from deployments.servers.credentials import credentials_of
from deployments.servers.garbage import collect_garbage_often
from deployments.servers.running import watcher_lock
from deployments.styles.files import FOLDER, SUFFIX, load_styles, style_of_file
from sdlora.config import PipelineConfig
from sdlora.core.errors import DataError, SdloraError
from sdlora.data.config import resolve_data
from sdlora.data.sources.base import local_path, redacted
from sdlora.store.image_store import ImageStore
from sdlora.store.readiness import Readiness, change_token
from tasks.collect import collect_source
from tasks.home import state_folder
from tasks.lock import run_lock
from tasks.triggered import triggered_styles
from tasks.waiting.triggers import start_ready

TICK_SECONDS = 0.5
_STYLES_SECONDS, _RUNS_SECONDS, _LONGEST_SECONDS = 2.0, 3.0, 60.0
_RETRY_SECONDS = 5.0
_log = logging.getLogger("sdlora.watcher")


@dataclass(frozen=True)
class WatchedSource:
    """Source of a dataset, as one style names it."""

    dataset: str
    uri: str

    @property
    def path(self) -> Path | None:
        """Local path; None for a source elsewhere."""
        return local_path(self.uri)


@dataclass
class Watcher:
    """Loop over sources and styles; `tick` is one turn.

    Attributes:
        config_file: file of a style elsewhere; None without one.
        settle_seconds: time without a change after which a file is whole.
    """

    home: Path
    config_file: Path | None = None
    settle_seconds: float = SETTLE_SECONDS
    clock: Callable[[], float] = time.monotonic
    styles: list[PipelineConfig] = field(default_factory=list)
    decisions: dict[str, Readiness] = field(default_factory=dict)
    _sources: dict[WatchedSource, PipelineConfig] = field(default_factory=dict)
    _due: dict[WatchedSource, float] = field(default_factory=dict)
    _local: LocalSources = field(init=False)
    _pools: dict[bool, ThreadPoolExecutor] = field(init=False)
    _running: dict[WatchedSource, Future[None]] = field(default_factory=dict)
    _seen: dict[Path, tuple[int, int, int]] | None = None
    _store: ImageStore | None = None
    _token: tuple[object, ...] | None = None
    _styles_at: float = 0.0
    _decide_at: float = 0.0
    _not_before: float = 0.0
    _announced: set[WatchedSource] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._local = LocalSources(self.settle_seconds, self.clock)
        # One thread for each kind: a slow server elsewhere does not delay the folders of this machine.
        self._pools = {is_local: ThreadPoolExecutor(1) for is_local in (True, False)}

    def announce(self, name: str) -> bool:
        """Collect a source, or all sources of a style, as soon as possible; False if no style has it."""
        with self._lock:
            found = {source for source, style in self._sources.items() if name in (source.uri, style.name)}
            found |= {source for source in self._sources if source.path is not None and str(source.path) == name}
            self._announced |= found
        return bool(found)

    def tick(self) -> None:
        """Take up changed styles, collect the sources that are due, and start what is ready."""
        now = self.clock()
        if now >= self._styles_at:
            self._styles_at = now + _STYLES_SECONDS
            self._take_up()
        changed = set(self._local.whole())
        with self._lock:
            announced, self._announced = self._announced, set()
        for source, style in list(self._sources.items()):
            if source in announced or source.path in changed or now >= self._due.get(source, 0.0):
                self._collect(source, style)
        self._decide(now)

    def close(self) -> None:
        self._local.close()
        if self._store:
            self._store.close()
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def _take_up(self) -> None:
        stamps = self._stamps()
        if stamps == self._seen:  # reading fifty files takes a tenth of a second
            return
        self._seen = stamps
        found = [style.config for style in load_styles(self.home) if style.config and not style.problem]
        if self.config_file and (own := style_of_file(self.config_file, self.config_file.stem).config):
            found = [own, *(config for config in found if config.name != own.name)]
        styles = [config for config in found if config.trigger.is_on]
        if styles == self.styles:
            return
        self.styles = styles
        sources = {
            WatchedSource(config.data.dataset or config.name, uri): config
            for config in styles
            for uri in config.data.sources
        }
        with self._lock:
            self._sources = sources
        self._due = {source: due for source, due in self._due.items() if source in sources}
        self._local.follow(path for source in sources if (path := source.path) is not None)
        self._token = None

    def _stamps(self) -> dict[Path, tuple[int, int, int]]:
        files = [*(self.home / FOLDER).glob(f"*{SUFFIX}"), *([self.config_file] if self.config_file else [])]
        stamps = {}
        for file in files:
            with suppress(OSError):  # removed meanwhile
                status = file.stat()
                stamps[file] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return stamps

    def _collect(self, source: WatchedSource, style: PipelineConfig) -> None:
        running = self._running.get(source)
        if running and not running.done():
            self._due[source] = self.clock()  # something came meanwhile: once more
            return
        self._due[source] = self.clock() + style.trigger.poll_minutes * 60
        pool = self._pools[source.path is not None]
        self._running[source] = pool.submit(self._collect_now, source, style)

    def _collect_now(self, source: WatchedSource, style: PipelineConfig) -> None:
        try:
            data = resolve_data(style.data, style.name)
            with run_lock(self.home), ImageStore.open(self.home) as store:
                report = collect_source(
                    store.dataset(data.dataset), source.uri, data, settle_seconds=self.settle_seconds / 2
                )
        except DataError as error:  # the source is empty or gone: people hear of it after several polls
            _log.warning("%s of dataset %s: %s", redacted(source.uri), source.dataset, error)
        except SdloraError as error:  # a repair works in the folder, or the database is away
            _log.warning("%s of dataset %s: %s", redacted(source.uri), source.dataset, error)
            self._due[source] = self.clock() + _RETRY_SECONDS
        except Exception:  # noqa: BLE001  # the next poll tries again
            _log.exception("%s of dataset %s could not be read", redacted(source.uri), source.dataset)
        else:
            if report.new or report.left or report.recaptioned:
                _log.info("%s: %d new images for dataset %s", report.source, report.new, source.dataset)

    def _decide(self, now: float) -> None:
        """Decide again after a change of the database, at the time that a decision named, and every minute."""
        if now < self._not_before or not self.styles:
            return
        self._store = self._store or ImageStore.open(self.home)  # opening takes longer than the look
        with self._store.read() as session:
            token = change_token(session)
        if token == self._token and now < self._decide_at:
            return
        if token != self._token:  # ratings change what a source of drawn images holds
            self._due |= {source: now for source in self._sources if source.uri.startswith("generated:")}
        busy_seconds = -time.thread_time()
        try:
            decisions = start_ready(triggered_styles(self.styles), self.home, datetime.now(UTC))
        except Exception as error:  # noqa: BLE001  # a server that is away comes back
            _log.warning("Runs cannot be started just now: %s", error or type(error).__name__)
            self._not_before = now + _RETRY_SECONDS
            return
        for decision in decisions:
            before = self.decisions.get(decision.style)
            if before is None or before.reason != decision.reason:
                _log.info("%s: %s", decision.style, decision.reason)
        self.decisions = {decision.style: decision for decision in decisions}
        self._token = token
        self._decide_at = self.clock() + self._seconds_to_next(decisions)
        # Large datasets take a moment to read: at most a tenth of the time goes into it. Only computing counts, not
        # waiting.
        busy_seconds += time.thread_time()
        self._not_before = self.clock() + min(10 * busy_seconds, _LONGEST_SECONDS) if busy_seconds > 0.5 else 0.0

    def _seconds_to_next(self, decisions: Sequence[Readiness]) -> float:
        if any(decision.is_ready for decision in decisions):
            return _RUNS_SECONDS
        times = [decision.look_again_at for decision in decisions if decision.look_again_at]
        wait = min(times, default=datetime.now(UTC) + timedelta(seconds=_LONGEST_SECONDS)) - datetime.now(UTC)
        return min(max(0.0, wait.total_seconds()), _LONGEST_SECONDS)


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--receiver", action="store_true", help="the standard input is the receiver's socket")
    parser.add_argument("--config", type=Path)
    arguments = parser.parse_args()
    # Prefect has set up the root logger for its own processes.
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING, force=True)
    _log.setLevel(logging.INFO)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    watcher = Watcher(state_folder(None), arguments.config)
    if arguments.receiver:
        from deployments.arrivals.receiver import serve

        serve(watcher.announce, credentials_of(watcher.home).receiver_token, socket.socket(fileno=sys.stdin.fileno()))
    collect_garbage_often()
    with watcher_lock(watcher.home, stopping):
        _log.info("The watcher is ready.")
        while not stopping.wait(TICK_SECONDS):
            try:
                watcher.tick()
            except (SdloraError, OSError):
                _log.exception("The watcher goes on after an error")
                stopping.wait(_RETRY_SECONDS)
    watcher.close()


if __name__ == "__main__":
    main()
