"""Concurrent slow work on many items in threads: in order, or limited per lane."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

ITEMS_AHEAD_PER_WORKER = 4
"""Queued items per worker."""

_POLL_SECONDS = 0.2
"""Interval between looks at paused lanes."""


class TryLaterError(Exception):
    """Signal from work that its whole lane must pause for `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


def in_order(items: Iterator[T], work: Callable[[T], R], workers: int) -> Iterator[R]:
    """Yield the result of `work` for each item, in the order of the items. Few items are held at a time."""
    if workers == 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ITEMS_AHEAD_PER_WORKER * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_lanes(
    items: Iterator[T], work: Callable[[T], R], lane_of: Callable[[T], str], workers: int, per_lane: int
) -> Iterator[R]:
    """Yield the result of `work` for each item as soon as it is done, at most `per_lane` items of a lane in parallel.

    Args:
        work: may raise TryLaterError; it is called again for the item after the pause.
    """
    lanes = _Lanes(items, work, lane_of, workers, per_lane)
    try:
        yield from lanes.results()
    finally:
        lanes.pool.shutdown(wait=False, cancel_futures=True)


class _Lanes(Generic[T, R]):
    """Queues of waiting items by lane, and the running work."""

    MAX_WAITING = 1000
    """Limit of waiting items. A high limit makes it likely that one of them has a free lane."""

    def __init__(
        self, items: Iterator[T], work: Callable[[T], R], lane_of: Callable[[T], str], workers: int, per_lane: int
    ) -> None:
        self.pool = ThreadPoolExecutor(workers)
        self.items, self.work, self.lane_of = items, work, lane_of
        self.workers, self.per_lane = workers, per_lane
        self.waiting: dict[str, deque[T]] = {}
        self.waiting_count = 0
        self.active: Counter[str] = Counter()
        self.paused_until: dict[str, float] = {}
        self.running: dict[Future[R], T] = {}

    def results(self) -> Iterator[R]:
        has_more = True
        while has_more or self.waiting_count or self.running:
            has_more = has_more and self._fill_queues()
            self._start()
            if not self.running:  # every lane with items is paused
                time.sleep(_POLL_SECONDS)
                continue
            done, _ = wait(self.running, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                item = self.running.pop(future)
                self.active[self.lane_of(item)] -= 1
                try:
                    result = future.result()
                except TryLaterError as try_later:
                    self._put_back(item, try_later.seconds)
                    continue
                yield result

    def _fill_queues(self) -> bool:
        """Queue items up to the limit; return whether more may follow."""
        while self.waiting_count < self.MAX_WAITING:
            item = next(self.items, None)
            if item is None:
                return False
            self.waiting.setdefault(self.lane_of(item), deque()).append(item)
            self.waiting_count += 1
        return True

    def _start(self) -> None:
        """Start work on idle workers, one item of each lane in turn."""
        now = time.monotonic()
        started = True
        while started and len(self.running) < self.workers:
            started = False
            for lane in list(self.waiting):
                if len(self.running) >= self.workers:
                    return
                if self.active[lane] >= self.per_lane or self.paused_until.get(lane, 0.0) > now:
                    continue
                item = self.waiting[lane].popleft()
                if not self.waiting[lane]:
                    del self.waiting[lane]
                self.waiting_count -= 1
                self.active[lane] += 1
                self.running[self.pool.submit(self.work, item)] = item
                started = True

    def _put_back(self, item: T, seconds: float) -> None:
        lane = self.lane_of(item)
        self.paused_until[lane] = max(self.paused_until.get(lane, 0.0), time.monotonic() + seconds)
        self.waiting.setdefault(lane, deque()).appendleft(item)
        self.waiting_count += 1
