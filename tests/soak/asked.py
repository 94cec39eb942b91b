"""Runs that were asked for, and how they ended."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass
class Asked:
    """Run that was asked for: a flow run of the worker, or a process of a terminal.

    Attributes:
        arriving: digests of the images that ask for it, if it is started by new data.
        starts_before: newest start by new data before these images came.
    """

    style: str
    flow_run_id: str | None = None
    arriving: frozenset[str] = frozenset()
    starts_before: int = 0
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None
    state: str = ""
    message: str = ""

    @property
    def completed(self) -> bool:
        return self.state == "COMPLETED"


def moment(text: str) -> float:
    """Return the seconds since 1970 of a time as Prefect writes it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
