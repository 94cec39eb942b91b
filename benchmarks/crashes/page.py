"""Record of the table, one cell for each fault at each stage, and the page that is made from them.

A record is kept from call to call, so that a table which takes an hour can be measured row by row. A cell that was
measured once is replaced when it is measured again. A cell without a record is shown as not run.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_INTRODUCTION = """
`benchmarks/crashes/` puts faults on a run at every stage (base, collect, clean, snapshot, fine-tune, duel, decide,
publish), and writes this page. [Operations](operations.md) says what a run does while a server is away.

```
python -m benchmarks.crashes --faults killed --page docs/crashes.md         # measures one row and writes the page
python -m benchmarks.crashes --postgres postgresql://postgres@127.0.0.1:5432/postgres    # all faults
```

A fault that ends a run strikes a chain of runs. The same command continues and is struck at the next stage, until a run
completes. A fault that a run survives strikes one run at every stage. Each stage is struck once, at a moment that is
drawn with a seed. The runs are `sdlora run` in a terminal, for `worker` and `up` those of the worker. With `--minutes`
the strikes end after that time, and the last run completes. The stages that are left stay blank.
"""
_FAULTS = """
## Faults

| fault | put on | a run then |
|---|---|---|
| `killed`, `terminated` | the run | ends; the same command continues |
| `reboot` | run, Prefect and MLflow at once | ends; the same command continues |
| `prefect`, `mlflow` | the server, which starts again | goes on |
| `prefect-away`, `mlflow-away`, `postgres-away`, `all-away` | the server, for `--away` seconds | goes on |
| `stopped` | the run, for 10 s (SIGSTOP) | goes on |
| `clock` | the clock, an hour forth and back (libfaketime) | goes on |
| `disk` | the disk of the state folder, which is full; only root can try it | ends; the same command continues |
| `worker` | the worker of `sdlora up` | goes on |
| `up` | `sdlora up`, which is started again and asked for a run | ends; the next run continues |
"""
_READING = """
A cell is the outcome and the seconds of work lost. They are the seconds in the stage over all runs of the chain, less
those of an undisturbed run and those of the absence or stop itself. What a started run does again is counted, such as
reading models, and so is the wait for a killed server that starts again. After an absence a client notices the server
with its next try; MLflow's waits up to two minutes between tries. An outcome counts only if the chain ends with the
adapter of an undisturbed run, equal to the byte, and with as many versions and decisions in the registry.
`away already` means that the stage began during the strike before, or that a server still waited for its start after
it. Nothing was struck a second time then. `not reached` means that the run ended before the stage began. A blank cell
was not run. The seconds that runs of a chain spend again in stages without a strike are in no cell.
"""
_SEEN = """
## Seen otherwise

These were seen one by one. No cell above counts them.

| fault | stage | outcome | seen in |
|---|---|---|---|
| Prefect, MLflow, PostgreSQL killed at once, away for 300 s | fine-tune, after 2 s | completes (see below) | by hand |
| Prefect and MLflow of `sdlora up` killed at once | fine-tune | completes with the whole curve | `test_outages.py` |
| worker killed | fine-tune | its run completes, a new worker starts | `test_outages.py` |
| `sdlora down` | fine-tune | the run saves and ends, no process is left | `test_outages.py` |
| Prefect server of a terminal run killed | fine-tune | started again, run completes | `test_outages.py` |
| PostgreSQL away for 1.5 s | before a transaction | waited for | `test_servers.py` |
| PostgreSQL away | within a transaction | rolled back, error of the task, which is repeated | `test_servers.py` |

The run of the first row went on 74 s after the start commands of the servers, on a busy machine (2026-11-30). How much
of this was the servers' own start and how much the waits of the clients was not measured.
"""


@dataclass(frozen=True)
class Cell:
    """Outcome of a fault at a stage.

    Attributes:
        lost_seconds: work lost, less than 0 if the stage was quicker than in an undisturbed run; None if unknown.
        load: load of the machine (1 minute) at the end of the chain.
        commit: short name of the commit that was measured.
    """

    fault: str
    stage: str
    outcome: str
    lost_seconds: float | None
    load: float
    date: str
    commit: str


def read_cells(path: Path) -> list[Cell]:
    return [Cell(**cell) for cell in json.loads(path.read_text())] if path.exists() else []


def add_cells(path: Path, cells: Sequence[Cell]) -> list[Cell]:
    """Add cells to a record, where they replace those of the same fault and stage; return all of them."""
    found = {(cell.fault, cell.stage): cell for cell in (*read_cells(path), *cells)}
    path.write_text(json.dumps([asdict(cell) for cell in found.values()], indent=1) + "\n")
    return list(found.values())


def page(cells: Sequence[Cell], faults: Mapping[str, str], stages: Sequence[str]) -> str:
    """Write the page; `faults` are the titles of all faults by their names on the command line."""
    parts = ["# Crashes", _INTRODUCTION.strip(), _FAULTS.strip(), "## Measured", _table(cells, faults, stages)]
    parts += [_READING.strip(), _conditions(cells), _problems(cells, faults), _missing(cells, faults, stages)]
    parts.append(_SEEN.strip())
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(cells: Sequence[Cell], faults: Mapping[str, str], stages: Sequence[str]) -> str:
    known = {(cell.fault, cell.stage): cell for cell in cells}
    lines = ["| fault | " + " | ".join(stages) + " |", "|---" * (len(stages) + 1) + "|"]
    for name, title in faults.items():
        row = [_text(known.get((name, stage))) for stage in stages]
        lines.append(f"| {title} (`{name}`) | " + " | ".join(row) + " |")
    return "\n".join(lines)


def _text(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if ": " in cell.outcome:
        return "**failed**"
    return cell.outcome if cell.lost_seconds is None else f"{cell.outcome}, {max(cell.lost_seconds, 0):.0f} s"


def _conditions(cells: Sequence[Cell]) -> str:
    if not cells:
        return ""
    loads = sorted(cell.load for cell in cells)
    days = sorted({cell.date for cell in cells})
    commits = ", ".join(sorted({cell.commit for cell in cells}))
    return (
        f"Measured {' to '.join(dict.fromkeys((days[0], days[-1])))} at commit {commits}: {platform.machine()}, "
        f"{os.cpu_count()} cores, load {loads[0]:.0f} to {loads[-1]:.0f} at the end of a chain. At a load above the "
        "number of cores other work slows the runs. The seconds then differ from call to call and bound nothing. "
        "A difference below zero is shown as 0."
    )


def _problems(cells: Sequence[Cell], faults: Mapping[str, str]) -> str:
    failed = [cell for cell in cells if ": " in cell.outcome]
    return "\n".join(f"- {faults.get(cell.fault, cell.fault)}, {cell.stage}: {cell.outcome}" for cell in failed)


def _missing(cells: Sequence[Cell], faults: Mapping[str, str], stages: Sequence[str]) -> str:
    known = {(cell.fault, cell.stage) for cell in cells}
    blank = {name: [stage for stage in stages if (name, stage) not in known] for name in faults}
    none = [f"`{name}`" for name, left in blank.items() if len(left) == len(stages)]
    some = [f"`{name}` at {', '.join(left)}" for name, left in blank.items() if 0 < len(left) < len(stages)]
    sentences = [f"Not run at any stage: {', '.join(none)}."] if none else []
    sentences += [f"Not run: {'; '.join(some)}."] if some else []
    return " ".join(sentences)
