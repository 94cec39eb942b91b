"""Process of a flow run, as a worker starts it: Prefect's engine, with patience from its first request.

python deployments/servers/flow_process.py    # the worker sets PREFECT__FLOW_RUN_ID
"""

from __future__ import annotations

import os
import runpy
import shlex
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
LOG = "runs.log"
"""Log file of all runs of workers; the lines of one run are on its page in Prefect."""


def command() -> str:
    """Return the command of a work pool's jobs."""
    return shlex.join([sys.executable, str(Path(__file__).resolve())])


def _outlive_worker() -> None:
    """Become independent of the worker: a process group and a log of this process's own.

    Whoever stops the worker's group lets its runs save first. The worker reads the output of its runs by a pipe, which
    breaks if the worker is killed.
    """
    from deployments.servers.services import open_log
    from tasks.home import state_folder
    from tasks.private import private_folder

    os.setsid()
    with open_log(private_folder(state_folder(None) / "logs") / LOG) as log:
        for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
            os.dup2(log.fileno(), descriptor)


if __name__ == "__main__":
    sys.path[0] = str(PROJECT)  # Python has put the script's own folder there
    from deployments.servers.garbage import collect_garbage_seldom

    collect_garbage_seldom()  # before the imports, which create most objects
    from deployments.servers.end_with_up import end_with_up
    from deployments.servers.patience import wait_for_prefect

    _outlive_worker()
    end_with_up()
    wait_for_prefect()
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
