"""Lines in a file for the beginning and the end of each stage, written by the processes of runs.

A folder with a `sitecustomize.py` is put on the PYTHONPATH of what is started. So the runs are those of the real
command and of the real worker, and each task of a stage writes its lines wherever it runs. Only the time for the start
of a server is longer than that of a user.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STAGES = ("base", "collect", "clean", "snapshot", "fine-tune", "duel", "decide", "publish")
TASKS = {
    "prepare_base_model": "base",
    "collect_images": "collect",
    "clean_images": "clean",
    "make_snapshot": "snapshot",
    "fine_tune_adapter": "fine-tune",
    "run_duel": "duel",
    "decide": "decide",
    "publish": "publish",
}
"""Stages by the functions of their tasks."""
PATIENCE_SECONDS = 3600.0
"""Time for a server to start and for a run to end, on a machine that other work keeps busy."""

_SITE = '''
import functools, importlib.abc, importlib.util, json, os, sys, time

MARKS, TASKS = {marks!r}, {tasks!r}


def mark(stage, event):
    with open(MARKS, "a") as file:
        line = {{"stage": stage, "event": event, "at": time.monotonic(), "pid": os.getpid()}}
        file.write(json.dumps(line) + chr(10))


def marked(function, stage):
    @functools.wraps(function)
    def run(*arguments, **options):
        mark(stage, "begin")
        try:
            return function(*arguments, **options)
        finally:
            mark(stage, "end")

    return run


def mark_tasks(task_class):
    original = task_class.__init__

    def init(self, fn, *arguments, **options):
        stage = TASKS.get(fn.__name__)
        original(self, marked(fn, stage) if stage else fn, *arguments, **options)

    task_class.__init__ = init


def await_servers_longer(services):
    """A server that a busy machine starts late is none of the faults."""
    services.Service.wait_ready.__defaults__ = ({patience!r},)


class Finder(importlib.abc.MetaPathFinder):
    """Prefect reads its settings when it is imported, so nothing is imported here but awaited."""

    CHANGES = {{
        "prefect.tasks": lambda module: mark_tasks(module.Task),
        "deployments.servers.services": await_servers_longer,
    }}

    def __init__(self):
        self.left = dict(self.CHANGES)

    def find_spec(self, name, path, target=None):
        if name not in self.left:
            return None
        change = self.left.pop(name)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (load(module), change(module))
        return spec


sys.meta_path.insert(0, Finder())
'''


class Marks:
    """File of marks in a folder, and the variables that make runs write to it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "marks.jsonl"
        site = folder / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(
            _SITE.format(marks=str(self.path), tasks=TASKS, patience=PATIENCE_SECONDS)
        )
        self.variables = {"PYTHONPATH": str(site)}

    def events(self) -> list[dict[str, Any]]:
        """Return the whole lines so far, each with stage, event ("begin" or "end"), time in seconds and process."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines() if line.endswith("}")]

    def close(self) -> None:
        """Note the end of the stages that processes were in, all of which have ended, perhaps without a word."""
        is_open: dict[tuple[str, int], bool] = {}
        for event in self.events():
            is_open[event["stage"], event["pid"]] = event["event"] == "begin"
        with self.path.open("a") as file:
            for stage, pid in (key for key, value in is_open.items() if value):
                file.write(json.dumps({"stage": stage, "event": "end", "at": time.monotonic(), "pid": pid}) + "\n")

    def stage_seconds(self) -> dict[str, float]:
        """Sum the time in each stage over all runs; a stage that was cut ends with the fault, noted by the harness."""
        return {stage: sum(end - begin for begin, end in spans) for stage, spans in self._spans().items()}

    def seconds_within(self, windows: Sequence[tuple[float, float]]) -> dict[str, float]:
        """Sum the time in each stage that lies in windows of time, which do not overlap."""
        return {
            stage: sum(max(0.0, min(end, last) - max(begin, first)) for begin, end in spans for first, last in windows)
            for stage, spans in self._spans().items()
        }

    def _spans(self) -> dict[str, list[tuple[float, float]]]:
        spans: dict[str, list[tuple[float, float]]] = {stage: [] for stage in STAGES}
        begun: dict[tuple[str, int], float] = {}
        for event in self.events():
            key = (event["stage"], event["pid"])
            if event["event"] == "begin":
                begun[key] = event["at"]
            elif key in begun:
                spans[event["stage"]].append((begun.pop(key), event["at"]))
        return spans
