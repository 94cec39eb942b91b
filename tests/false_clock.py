"""A clock that can be set for the processes that are started with its variables, by libfaketime."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SLEEP = """
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_nanosleep(clockid_t clock, int flags, const struct timespec *request, struct timespec *remain) {
    return syscall(SYS_clock_nanosleep, clock, flags, request, remain) ? errno : 0;
}
"""


def missing() -> str | None:
    """Return why no clock can be set here; None if one can."""
    if not _libraries():
        return "libfaketime is not installed"
    return None if shutil.which("cc") else "no C compiler"


class FalseClock:
    """Clock of the date for all processes that get `variables`; their steady clock stays true."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "clock"
        # With a true monotonic clock, libfaketime 0.9.10 fails every time.sleep of Python 3.11 with EINVAL.
        source, sleep = folder / "sleep.c", folder / "sleep.so"
        source.write_text(_SLEEP)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(sleep), str(source)], check=True)
        self.set(0)
        self.variables = {
            "LD_PRELOAD": f"{sleep}:{_libraries()[0]}",
            "FAKETIME_TIMESTAMP_FILE": str(self.path),
            # A look at the file at every call would keep a core busy: servers ask for the date very often.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: int) -> None:
        """Set the clock this far ahead of the true time; processes see it within a second or two."""
        aside = self.path.with_suffix(".new")
        aside.write_text(f"{seconds:+d}")
        aside.replace(self.path)  # a process that finds an empty file takes the true time

    @property
    def is_ahead(self) -> bool:
        return int(self.path.read_text()) > 0


def _libraries() -> list[Path]:
    return sorted(Path("/usr/lib").rglob("libfaketime.so.1"))
