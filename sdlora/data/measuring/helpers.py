"""Other work than measuring, in processes of its own once there is enough of it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Self

from sdlora.data.measuring.workers import available_cores, start_pool

_WORTH_A_POOL = 4  # portions at once: below that, sending them takes longer than it saves


class Helpers:
    """Stands in for `map`: the same results in the same order. A context manager, which ends its processes."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._possible = available_cores() > 1 and not multiprocessing.current_process().daemon

    def __call__(self, work: Callable[..., Any], *arguments: Iterable[Any]) -> Iterator[Any]:
        """Results of `work`, which can be pickled, for each of the portions of its arguments."""
        columns = [list(values) for values in arguments]
        if self._possible and len(columns[0]) >= _WORTH_A_POOL:
            self._pool = self._pool or start_pool()
            self._possible = self._pool is not None
            if self._pool is not None:
                try:
                    return iter(list(self._pool.map(work, *columns)))
                except BrokenProcessPool:  # this process can do it as well, if more slowly
                    self._possible = False
        return map(work, *columns)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
