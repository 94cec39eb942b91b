"""Command of the table of crashes; see the package."""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
from pathlib import Path

from benchmarks import crashes
from benchmarks.crashes.faults import AWAY_SECONDS
from benchmarks.crashes.marks import STAGES
from benchmarks.crashes.page import add_cells, page, read_cells
from benchmarks.crashes.setting import PROJECT
from benchmarks.crashes.table import Measurement, titles


def main() -> None:
    parser = argparse.ArgumentParser(description=crashes.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", default=",".join(titles()))
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--away", type=float, default=AWAY_SECONDS)
    parser.add_argument("--postgres", help="address of a server on this machine; databases are made there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="strike no more in a chain after this time")
    parser.add_argument("--undisturbed", type=Path, help="file to keep the undisturbed run in, for further calls")
    parser.add_argument("--record", type=Path, default=PROJECT / "benchmarks" / "crashes" / "record.json")
    parser.add_argument("--page", type=Path, help="write the page here; with --faults '' from the record alone")
    arguments = parser.parse_args()
    if arguments.faults:
        folder = Path(tempfile.mkdtemp(prefix="sdlora-crashes-"))
        try:
            measurement = Measurement(
                folder,
                arguments.stages.split(","),
                arguments.away,
                arguments.postgres,
                arguments.seed,
                arguments.minutes,
                arguments.undisturbed,
            )
            measurement.rows(arguments.faults.split(","), lambda cells: (add_cells(arguments.record, cells), None)[1])
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    text = page(read_cells(arguments.record), titles(), STAGES)
    if arguments.page:
        arguments.page.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
