"""Work for worker processes that some images do harm to, in a module that a new process can import."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

from sdlora.data.decoding.decode import Decoded
from sdlora.data.measuring.measure import ImageScores, score_decoded


def work(shas: Sequence[str]) -> list[ImageScores]:
    if any(sha256.startswith("crash") for sha256 in shas):
        os.kill(os.getpid(), signal.SIGSEGV)
    if any(sha256.startswith("hang") for sha256 in shas):
        time.sleep(600)
    return score_decoded(shas, [Decoded(None, None, "looked at") for _ in shas], "white")


def end_other_processes(here: int) -> int:
    """Kills its process unless that is `here`."""
    if os.getpid() != here:
        os.kill(os.getpid(), signal.SIGKILL)
    return here
