"""Soak: rounds on a running `sdlora up` with news, decisions and faults drawn from a seed; docs/soak.md is its report.

    python benchmarks/soak.py [--seed 0] [--rounds 60] [--from 1] [--folder FOLDER] [--report docs/soak.md]
        [--go-on] [--calm] [--postgres]

A failing invariant ends it and prints seed, round, and what differs. A round depends on the seed and its number only:
`--from N --rounds 1` repeats it on a new state folder. With `--folder` it continues on the state of a failed soak.
The state folder is on a small disk, and its processes have a clock that can be set. The page tells what was missing.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

from tests.soak.loop import Soak, planned_rounds  # noqa: E402
from tests.soak.machine import Machine  # noqa: E402
from tests.soak.outcomes import recorded_outcomes  # noqa: E402
from tests.soak.report import markdown, memory_problems  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--from", dest="first", type=int, default=1, help="number of the first round")
    parser.add_argument("--minutes", type=float, default=90, help="no round begins after this time")
    parser.add_argument("--folder", type=Path, help="kept; by default a temporary folder, kept after a failure")
    parser.add_argument("--report", type=Path, help="write the page here")
    parser.add_argument("--notes", default="", help="a sentence for the page, such as what else the machine did")
    parser.add_argument("--calm", action="store_true", help="no faults, so that every process lives to the end")
    parser.add_argument("--postgres", action="store_true", help="keep the images in a PostgreSQL server of the soak")
    parser.add_argument("--go-on", action="store_true", help="go on after a failing invariant")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the servers have to end with this process
    folder = options.folder or Path(tempfile.mkdtemp(prefix="sdlora-soak-"))
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    machine, failed = Machine(folder, has_postgres=options.postgres), True
    try:
        soak = Soak(folder, options.seed, lambda line: print(line, flush=True), _commit(), machine)
        outcomes = soak.run(
            planned_rounds(options.seed, options.first, options.rounds, options.calm, machine.missing),
            stop_at_problem=not options.go_on,
            until=time.monotonic() + options.minutes * 60,
        )
        if options.report:
            page = markdown(options.seed, recorded_outcomes(folder), options.notes, machine.missing)
            options.report.write_text(page)
        failed = any(outcome.problems for outcome in outcomes) or bool(memory_problems(outcomes))
    finally:
        machine.close(keeps_disk=failed)
    print(f"{len(outcomes)} rounds, {'FAILED' if failed else 'all invariants hold'}; seed {options.seed}")
    if not failed and not options.folder:
        shutil.rmtree(folder)
    return int(failed)


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
