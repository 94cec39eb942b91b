"""Identity of a process, by which other processes see whether it still runs."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil


@dataclass(frozen=True)
class ProcessIdentity:
    """Process of a machine. No clock is involved, so a changed clock makes no process look ended.

    Attributes:
        machine: host name, then a boot of the kernel and a space of process ids. Two containers with one host name
            differ in the last, and a machine differs from itself before a restart.
        start: time since the boot at which the process started. A later process of the same id has another one.
    """

    machine: str
    pid: int
    start: str

    @classmethod
    def of_this_process(cls) -> ProcessIdentity:
        return cls(_this_machine(), os.getpid(), _start(os.getpid()) or "")

    @property
    def host(self) -> str:
        """Host name of the machine."""
        return self.machine.partition(" ")[0]

    @property
    def is_on_this_machine(self) -> bool:
        """True if this process can see the other one. False after a restart of the machine."""
        return self.machine == _this_machine()

    @property
    def has_ended(self) -> bool:
        """True if the process is known to have ended; always False for a process of another machine."""
        return self.is_on_this_machine and _start(self.pid) != self.start


@cache
def _this_machine() -> str:
    return f"{platform.node().replace(' ', '-') or 'unknown'} {_kernel()}"


def _kernel() -> str:
    """Identify the kernel's boot and the space of process ids; on systems without `/proc` the time of the boot."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{psutil.boot_time():.0f}"


def _start(pid: int) -> str | None:
    """Return the start of a process; None without such a process. A killed one that is not yet reaped counts as none.

    psutil's time of creation is computed from the clock of today, so it changes with the clock.
    """
    if not psutil.pid_exists(pid):
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # the name before may have spaces
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        pass
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return None
