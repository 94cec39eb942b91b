"""Import large libraries when they are first used, and in less time."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

# PyTorch with the model libraries is some 3,000 modules, and a process imports them once.
_LARGE_IMPORT = 1000


@contextmanager
def garbage_left() -> Iterator[None]:
    """While active, Python does not look for reference cycles; nor ever again in a large import made meanwhile.

    PyTorch and the model libraries make half a million objects when they are imported, all of which stay. To look
    through them again and again for garbage takes a quarter of that time (1.2 of 5 s), and once more at the end of the
    process a second.
    """
    was_enabled, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        # Freezing keeps all that lives for ever, in a later small import also a model that was just let go.
        if len(sys.modules) - known >= _LARGE_IMPORT:
            gc.freeze()
        if was_enabled:
            gc.enable()


def names_on_first_use(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__` (PEP 562): names by the module they live in, which is imported when one is asked for.

    Args:
        package: its `__name__`.
        homes: module by name. No module of the package may be named like a function here: importing it would put the
            module in the function's place.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with garbage_left():
            return getattr(import_module(homes[name]), name)

    return load
