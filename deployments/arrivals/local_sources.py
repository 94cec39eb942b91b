"""Watching of local sources: which of them changed, once nothing has been written for a moment."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from watchfiles import watch

_log = logging.getLogger("sdlora.watcher")

SETTLE_SECONDS = 2.0
"""Time without a change of a source after which its files are whole."""
LONGEST_WAIT_SECONDS = 30.0
"""Time after which a source is read that changes all the time; the files being written are left."""
_LOOK_AGAIN_SECONDS = 5.0
PARTIAL_SUFFIXES = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".download", ".filepart", "~")
"""Endings of files that a program is still writing."""


class LocalSources:
    """Local sources, watched in a thread.

    A folder is watched by the system's events. A single file is looked at every second. A folder that the system
    cannot watch is left to the polls.

    Args:
        settle_seconds: see `SETTLE_SECONDS`.
    """

    def __init__(self, settle_seconds: float = SETTLE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._settle_seconds, self._clock = settle_seconds, clock
        self._lock = threading.Lock()
        self._paths: frozenset[Path] = frozenset()
        self._first: dict[Path, float] = {}
        self._last: dict[Path, float] = {}
        self._stamps: dict[Path, object] = {}
        self._stop: threading.Event | None = None
        self._watched: frozenset[Path] = frozenset()
        self._look_at = 0.0

    def follow(self, paths: Iterable[Path]) -> None:
        """Watch these sources from now on. New ones count as changed, because files came while nobody watched."""
        wanted = frozenset(paths)
        for path in wanted - self._paths:
            self._note(path)
        self._paths = wanted
        with self._lock:
            for path in (self._last.keys() | self._stamps.keys()) - wanted:
                for facts in (self._first, self._last, self._stamps):
                    facts.pop(path, None)

    def whole(self) -> list[Path]:
        """Return the changed sources that may be read now; call it about every second."""
        self._look()
        now, found = self._clock(), []
        with self._lock:
            for path, last in list(self._last.items()):
                if now - last >= self._settle_seconds:
                    del self._last[path], self._first[path]
                elif now - self._first[path] >= LONGEST_WAIT_SECONDS:
                    self._first[path] = now  # it stays changed: the files that are left come with the next reading
                else:
                    continue
                found.append(path)
        return found

    def close(self) -> None:
        if self._stop:
            self._stop.set()

    def _note(self, path: Path) -> None:
        now = self._clock()
        with self._lock:
            self._first.setdefault(path, now)
            self._last[path] = now

    def _look(self) -> None:
        """Look at single files, and at folders that appear or vanish."""
        for path in self._paths:
            stamp = _stamp(path)
            if path in self._stamps and self._stamps[path] != stamp:
                self._note(path)
            self._stamps[path] = stamp
        folders = frozenset(path for path in self._paths if path.is_dir())
        is_alive = self._stop is not None and not self._stop.is_set()
        now = self._clock()
        if folders != self._watched or (not is_alive and folders and now >= self._look_at):
            self._look_at = now + _LOOK_AGAIN_SECONDS
            if self._watched and self._stop and self._stop.is_set():  # events were lost meanwhile
                for path in folders:
                    self._note(path)
            self.close()
            self._watched, self._stop = folders, threading.Event()
            if folders:
                arguments = (folders, self._stop)
                threading.Thread(target=self._watch, args=arguments, name="watch", daemon=True).start()

    def _watch(self, folders: frozenset[Path], stop: threading.Event) -> None:
        real = {folder.resolve(): folder for folder in folders}
        try:
            for changes in watch(*real, watch_filter=None, stop_event=stop, rust_timeout=1000, debounce=200):
                for source in {_source_of(Path(name), real) for _, name in changes if not _is_partial(name)} - {None}:
                    assert source is not None
                    self._note(source)
        except Exception as error:  # noqa: BLE001  # too many folders for the system, a folder that has just gone
            _log.warning("Folders cannot be watched just now, they are polled: %s", error)
        stop.set()


def _source_of(path: Path, real: Mapping[Path, Path]) -> Path | None:
    """Return the innermost source that holds a path."""
    return next((real[parent] for parent in (path, *path.parents) if parent in real), None)


def _is_partial(name: str) -> bool:
    return name.lower().endswith(PARTIAL_SUFFIXES)


def _stamp(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    # The time of a folder changes with each of its files, which the events tell.
    return (status.st_ino, None if path.is_dir() else (status.st_size, status.st_mtime_ns))
