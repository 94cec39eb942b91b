"""Parts of a machine that faults strike: a small disk, the clock, and a PostgreSQL server. Each may be missing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from deployments.servers.services import free_port
from tests import false_clock
from tests.false_clock import FalseClock
from tests.soak.waiting import wait_until

DISK_MEGABYTES = 500
"""Size of the disk of the state folder, which has about 200 MB after sixty rounds."""
_HOUR = 3600


class Machine:
    """Disk, clock and PostgreSQL server of a soak.

    Attributes:
        missing: why a fault is not possible here, by its victim.
    """

    def __init__(self, folder: Path, has_postgres: bool = False, is_plain: bool = False) -> None:
        """Mount the disk at `folder/disk`, and start PostgreSQL if it is wanted; a plain machine has neither."""
        reason = "a short form" if is_plain else None
        self.missing = {
            victim: why
            for victim, why in {
                "disk": reason or _no_disk(),
                "clock": reason or false_clock.missing(),
                "postgres": reason or (_no_postgres() if has_postgres else "no --postgres"),
            }.items()
            if why
        }
        self.disk = None if "disk" in self.missing else SmallDisk(folder)
        self.clock = None if "clock" in self.missing else FalseClock(folder)
        self.postgres = None if "postgres" in self.missing else Postgres(folder)

    @property
    def variables(self) -> dict[str, str]:
        """Variables of every process of the soak."""
        address = {"SDLORA_DATABASE_URL": self.postgres.address} if self.postgres else {}
        return (self.clock.variables if self.clock else {}) | address

    def close(self, keeps_disk: bool) -> None:
        """Stop PostgreSQL, and unmount the disk unless somebody wants to look at it."""
        if self.postgres:
            self.postgres.stop()
        if self.disk and not keeps_disk:
            self.disk.unmount()

    def set_clock(self, lasting_seconds: float) -> None:
        """Set the clock an hour forth, then an hour back, then right again."""
        assert self.clock
        for seconds in (_HOUR, -_HOUR):
            self.clock.set(seconds)
            time.sleep(lasting_seconds / 2)
        self.clock.set(0)


class SmallDisk:
    """File system in a file, mounted at `folder/disk`; one that is mounted there is taken as it is."""

    def __init__(self, folder: Path) -> None:
        self.path, image = folder / "disk", folder / "disk.img"
        self.path.mkdir(exist_ok=True)
        if os.path.ismount(self.path):
            return
        if not image.exists():
            with image.open("wb") as file:
                file.truncate(DISK_MEGABYTES * 2**20)
            # Without blocks that only root may use. The state folder has many small files.
            subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-b", "4096", "-i", "4096", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(self.path)], check=True)

    def fill(self, seconds: float) -> None:
        """Take all space for a time, also what is freed meanwhile."""
        filler, deadline = self.path / "filler", time.monotonic() + seconds
        try:
            with filler.open("wb") as file:
                while time.monotonic() < deadline:
                    size = file.seek(0, os.SEEK_END)
                    for part in (2**26, 2**20, 2**12):
                        with contextlib.suppress(OSError):
                            while time.monotonic() < deadline:
                                os.posix_fallocate(file.fileno(), size, part)
                                size += part
                    time.sleep(0.05)
        finally:
            filler.unlink(missing_ok=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)


class Postgres:
    """PostgreSQL server in `folder/postgres` whose database has the images."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder / "postgres", free_port()
        self.data = self.folder / "data"
        self.address = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        if not self.data.exists():
            self.folder.mkdir()
            if os.geteuid() == 0:  # PostgreSQL refuses to run for root
                folder.chmod(0o711)  # a temporary folder is closed to others
                shutil.chown(self.folder, "nobody")
            self._call("initdb", "-D", str(self.data), "-U", "postgres", "--auth", "trust")
        self.start()

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder}"
        # A killed server is started again only when its processes have let its shared memory go.
        wait_until(lambda: self._is_started(options), 120, "PostgreSQL to start", 1.0)

    def _is_started(self, options: str) -> bool:
        words = ("pg_ctl", "start", "-w", "-D", str(self.data), "-o", options, "-l", str(self.folder / "log.txt"))
        return self._call(*words, may_fail=True) == 0

    def kill(self, seconds: float) -> None:
        """Kill the server, and start it again after a time."""
        os.kill(int((self.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        time.sleep(seconds)
        self.start()

    def stop(self) -> None:
        self._call("pg_ctl", "stop", "-m", "fast", "-D", str(self.data), may_fail=True)

    def _call(self, *words: str, may_fail: bool = False) -> int:
        user = ("runuser", "-u", "nobody", "--") if os.geteuid() == 0 else ()
        with (self.folder / "calls.txt").open("ab") as output:
            return subprocess.run([*user, *words], stdout=output, stderr=output, cwd="/", check=not may_fail).returncode


def _no_disk() -> str | None:
    if os.geteuid() != 0:
        return "only root can mount a small disk"
    return None if shutil.which("mkfs.ext4") else "mkfs.ext4 is not installed"


def _no_postgres() -> str | None:
    absent = [name for name in ("initdb", "pg_ctl") if not shutil.which(name)]
    return f"{' and '.join(absent)} not found" if absent else None
