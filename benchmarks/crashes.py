"""Table of crashes: every stage of a run by every fault, with the outcome and the seconds of work lost.

    python benchmarks/crashes.py [--faults killed,stopped] [--stages duel,publish] [--away 20]
        [--postgres URL] [--record benchmarks/crashes.json] [--page docs/crashes.md]

Each fault is a chain on a state folder of its own, with a tiny base. A fault that ends a run strikes at the first
stage. The same command then continues and is struck at the next stage, and so on, until a run completes. A fault that
a run survives strikes at every stage of one run. The moment within a stage is drawn with a seed. At the end the adapter
has to be equal to the byte to that of an undisturbed run, with one version and one entry in the history.

The work lost is the time in all stages over all runs of the chain, less that of an undisturbed run, less the time for
which a server was away or the process was stopped. It includes what a started run does again, such as reading models.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import yaml

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

from benchmarks.crash_page import Cell, add_cells, page, read_cells  # noqa: E402
from benchmarks.crash_stack import FAULTS as STACK_FAULTS  # noqa: E402
from benchmarks.crash_stack import run_stack  # noqa: E402
from deployments.servers.services import answers, free_port  # noqa: E402
from sdlora.core.files import file_sha256  # noqa: E402
from tests.outages import Forwarder  # noqa: E402
from tests.tiny import draw_images, tiny_base_model  # noqa: E402

STAGES = ("base", "collect", "clean", "snapshot", "fine-tune", "duel", "decide", "publish")
TASKS = {
    "base": "prepare_base_model",
    "collect": "collect_images",
    "clean": "clean_images",
    "snapshot": "make_snapshot",
    "fine-tune": "fine_tune_adapter",
    "duel": "run_duel",
    "decide": "decide",
    "publish": "publish",
}
STACK_TASKS = {
    "base": "prepare base model",
    "collect": "collect images",
    "clean": "clean images",
    "snapshot": "make snapshot",
    "fine-tune": "fine-tune adapter",
    "duel": "duel",
    "decide": "decide",
    "publish": "publish",
}
"""Names of the tasks in Prefect."""
STYLE: dict[str, Any] = {
    "name": "shapes",
    "data": {"held_out_fraction": 0.4},
    "lora": {"rank": 2, "targets": "attention"},
    "training": {
        "steps": 60,
        "batch_size": 4,
        "log_every_steps": 2,
        "validation_every_steps": 30,
        "precision": "fp32",
        "checkpoint_every_steps": 10,
    },
    "evaluation": {
        "max_prompts": 8,
        "min_prompts": 2,
        "steps": 2,
        "denoising_steps": 2,
        "resamples": 100,
        "fid_resamples": 100,
        "shown_prompts": 3,
    },
}
PATIENCE_SECONDS = 900.0
NOT_REACHED, AWAY_ALREADY = "not reached", "goes on (away already)"


# The run: `sdlora run`, whose tasks write a line when they begin and end.


def run_marked(home: Path, config: Path, marks: Path) -> None:
    """Run the loop as the command does, with a line in `marks` for the beginning and the end of each stage."""
    from deployments import local_run
    from deployments.cli import app as command

    original = local_run.prefect_server

    @contextlib.contextmanager
    def prefect_server(*arguments: Any) -> Iterator[local_run.PrefectServer]:
        with original(*arguments) as server:
            _mark_tasks(marks)  # imports Prefect, whose settings the block before has set
            yield server

    local_run.prefect_server = prefect_server
    sys.argv = ["sdlora", "run", "--home", str(home), "--config", str(config)]
    command.main()


def _mark_tasks(marks: Path) -> None:
    from prefect.tasks import Task

    original = Task.__init__
    stages = {task: stage for stage, task in TASKS.items()}

    def marking(self: Any, fn: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        stage = stages.get(fn.__name__)
        original(self, _marked(fn, stage, marks) if stage else fn, *arguments, **options)

    Task.__init__ = marking  # type: ignore[method-assign]


def _marked(fn: Callable[..., Any], stage: str, marks: Path) -> Callable[..., Any]:
    @functools.wraps(fn)
    def run(*arguments: Any, **options: Any) -> Any:
        _mark(marks, stage, "begin")
        try:
            return fn(*arguments, **options)
        finally:
            _mark(marks, stage, "end")

    return run


def _mark(marks: Path, stage: str, event: str) -> None:
    with marks.open("a") as file:
        file.write(json.dumps({"stage": stage, "event": event, "at": time.monotonic(), "pid": os.getpid()}) + "\n")


# The harness.


@dataclass
class Setting:
    """State folder of a chain, with the servers that its runs use."""

    folder: Path
    config: Path
    variables: dict[str, str]
    mlflow: Forwarder | None = None
    postgres: Forwarder | None = None
    prefect: Forwarder | None = None
    clock: Path | None = None
    mlflow_server: subprocess.Popen[bytes] | None = None
    restart_mlflow: Callable[[], None] = lambda: None
    paused_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def marks(self) -> Path:
        return self.folder / "marks.jsonl"

    def start(self) -> subprocess.Popen[bytes]:
        """Start a run in a process group of its own."""
        command = [sys.executable, str(Path(__file__).resolve()), "--child", str(self.home), str(self.config)]
        with (self.folder / "output.txt").open("ab") as output:
            return subprocess.Popen(
                [*command, str(self.marks)],
                cwd=PROJECT,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=_clean_environment() | self.variables,
            )

    def events(self) -> list[dict[str, Any]]:
        if not self.marks.exists():
            return []
        return [json.loads(line) for line in self.marks.read_text().splitlines() if line.endswith("}")]

    def stage_seconds(self) -> dict[str, float]:
        """Sum the time in each stage over all runs; a stage that was cut ends with the fault, noted by the harness."""
        seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        begun: dict[tuple[str, int], float] = {}
        for event in self.events():
            key = (event["stage"], event["pid"])
            if event["event"] == "begin":
                begun[key] = event["at"]
            elif key in begun:
                seconds[event["stage"]] += event["at"] - begun.pop(key)
        return seconds


@dataclass(frozen=True)
class Fault:
    """Fault that is put on a running process.

    Attributes:
        strike: does it, and returns the seconds for which work could not go on; None if there was nothing to strike.
        ends_run: whether the run has to be started again.
        repair: undoes it before the next start.
    """

    name: str
    strike: Callable[[Setting, subprocess.Popen[bytes]], float | None]
    ends_run: bool
    repair: Callable[[Setting], None] = lambda setting: None
    needs: tuple[str, ...] = ()


@dataclass
class Chain:
    """Outcome of a fault: one row a stage."""

    rows: dict[str, str] = field(default_factory=dict)
    problem: str | None = None


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    return []


def kill_run(setting: Setting, process: subprocess.Popen[bytes]) -> float:
    process.kill()
    process.wait()
    return 0.0


def kill_everything(setting: Setting, process: subprocess.Popen[bytes]) -> float:
    """Kill the run, its servers and MLflow at the same moment, as a reboot does after its time-out."""
    for member in _family(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    if setting.mlflow_server:
        setting.mlflow_server.kill()
        setting.mlflow_server.wait()
        setting.restart_mlflow()
    return 0.0


def terminate_run(setting: Setting, process: subprocess.Popen[bytes]) -> float:
    process.terminate()
    process.wait(PATIENCE_SECONDS)
    return 0.0


def kill_prefect(setting: Setting, process: subprocess.Popen[bytes]) -> float | None:
    is_struck = False
    for member in _family(process)[1:]:
        with contextlib.suppress(psutil.Error):
            if "prefect.server.api.server:create_app" in " ".join(member.cmdline()):
                member.kill()
                is_struck = True
    return 0.0 if is_struck else None  # it may wait for its next start


def stop_run(seconds: float, setting: Setting, process: subprocess.Popen[bytes]) -> float:
    members = _family(process)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(number)
        if number == signal.SIGSTOP:
            time.sleep(seconds)
    return seconds


def take_away(names: tuple[str, ...], seconds: float, setting: Setting, process: subprocess.Popen[bytes]) -> float:
    forwarders: list[Forwarder] = [getattr(setting, name) for name in names]
    for forwarder in forwarders:
        forwarder.cut()
    time.sleep(seconds)
    for forwarder in forwarders:
        forwarder.restore()
    return seconds


def kill_mlflow(setting: Setting, process: subprocess.Popen[bytes]) -> float:
    assert setting.mlflow_server
    setting.mlflow_server.kill()
    setting.mlflow_server.wait()
    began = time.monotonic()
    setting.restart_mlflow()
    return time.monotonic() - began


def shift_clock(setting: Setting, process: subprocess.Popen[bytes]) -> float:
    """Set the clock of the run and its server an hour forth, and an hour back at the next stage."""
    assert setting.clock
    hours = 0 if setting.clock.read_text().startswith("+3600") else 1
    setting.clock.write_text("+3600" if hours else "+0")
    return 0.0


def fill_disk(setting: Setting, process: subprocess.Popen[bytes]) -> float:
    with (setting.folder / "filler").open("wb") as filler, contextlib.suppress(OSError):
        while True:
            filler.write(b"\0" * 2**20)
            filler.flush()
    process.wait(PATIENCE_SECONDS)
    return 0.0


def empty_disk(setting: Setting) -> None:
    (setting.folder / "filler").unlink(missing_ok=True)


def faults(away_seconds: float) -> dict[str, Fault]:
    """Return all faults by name."""

    def away(label: str, *names: str) -> Fault:
        strike = functools.partial(take_away, names, away_seconds)
        return Fault(f"{label} away for {away_seconds:.0f} s", strike, ends_run=False, needs=names)

    return {
        "killed": Fault("run killed (SIGKILL)", kill_run, ends_run=True),
        "terminated": Fault("run stopped (SIGTERM)", terminate_run, ends_run=True),
        "reboot": Fault("run and servers killed at once", kill_everything, ends_run=True, needs=("mlflow",)),
        "prefect": Fault("Prefect server killed", kill_prefect, ends_run=False),
        "mlflow": Fault("MLflow server killed", kill_mlflow, ends_run=False, needs=("mlflow",)),
        "prefect-away": away("Prefect", "prefect"),
        "mlflow-away": away("MLflow", "mlflow"),
        "postgres-away": away("PostgreSQL", "postgres"),
        "all-away": away("Prefect, MLflow and PostgreSQL", "prefect", "mlflow", "postgres"),
        "stopped": Fault("run stopped for 10 s (SIGSTOP)", functools.partial(stop_run, 10.0), ends_run=False),
        "clock": Fault("clock an hour forth, then back", shift_clock, ends_run=False, needs=("clock",)),
        "disk": Fault("disk full", fill_disk, ends_run=True, repair=empty_disk, needs=("small disk",)),
    }


def run_chain(
    fault: Fault, setting: Setting, usual: Mapping[str, float], generator: random.Random, stages: list[str]
) -> Chain:
    """Strike at each of the stages, and return the outcomes."""
    chain, left = Chain(), list(stages)
    process, seen = setting.start(), 0
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        if time.monotonic() > deadline:
            chain.problem = "did not end"
            kill_everything(setting, process)
            break
        events = setting.events()
        for event in events[seen:]:
            seen += 1
            if event["event"] != "begin" or event["stage"] not in left or event["pid"] != process.pid:
                continue
            stage = event["stage"]
            left.remove(stage)
            time.sleep(generator.random() * min(usual[stage], 5.0))
            hung_seconds = fault.strike(setting, process)
            if hung_seconds is None:
                chain.rows[stage] = AWAY_ALREADY
                continue
            setting.paused_seconds[stage] += hung_seconds
            chain.rows[stage] = "continues" if fault.ends_run else "goes on"
            if fault.ends_run and process.poll() is not None:
                fault.repair(setting)
                _close_marks(setting, process.pid)
                process = setting.start()
                seen = len(setting.events())
                deadline = time.monotonic() + PATIENCE_SECONDS
                break
        if process.poll() is not None:
            if process.returncode != 0:
                chain.problem = f"ended with {process.returncode}"
            break
        time.sleep(0.01)
    for stage in left:
        chain.rows[stage] = NOT_REACHED
    return chain


def _close_marks(setting: Setting, pid: int) -> None:
    """Note the end of the stage that a killed process was in."""
    open_stages: dict[str, bool] = {}
    for event in setting.events():
        if event["pid"] == pid:
            open_stages[event["stage"]] = event["event"] == "begin"
    with setting.marks.open("a") as file:
        for stage, is_open in open_stages.items():
            if is_open:
                line = {"stage": stage, "event": "end", "at": time.monotonic(), "pid": pid}
                file.write(json.dumps(line) + "\n")


def verdict(setting: Setting) -> tuple[str, int, int]:
    """Return the adapter's digest, and the numbers of versions and of entries in the history."""
    (weights,) = setting.home.glob("runs/shapes/*/adapter/pytorch_lora_weights.safetensors")
    done = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "versions", "--json", "--home", str(setting.home)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
        env=_clean_environment() | setting.variables,
    )
    versions = json.loads(done.stdout)["versions"]
    return file_sha256(weights), len(versions), sum(version["decided_at"] is not None for version in versions)


@contextlib.contextmanager
def setting_for(fault: Fault, folder: Path, images: Path, base: Path, postgres: str | None) -> Iterator[Setting]:
    """Make the state folder of a chain and the servers that the fault needs."""
    needs = fault.needs
    with contextlib.ExitStack() as stack:
        folder.mkdir()
        if "small disk" in needs:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(folder)], check=True)
            stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
        config = folder / "shapes.yaml"
        style = STYLE | {"base_model": {"source": str(base)}}
        style["data"] = STYLE["data"] | {"sources": [str(images)]}
        config.write_text(yaml.safe_dump(style))
        setting = Setting(folder, config, {"OMP_NUM_THREADS": "1"})
        if "mlflow" in needs:
            _start_mlflow(setting, stack)
        if "prefect" in needs:
            _start_prefect(setting, stack)
        if "postgres" in needs:
            assert postgres
            _use_postgres(setting, postgres, folder.name)
        if "clock" in needs:
            _use_false_clock(setting)
        yield setting


def _start_mlflow(setting: Setting, stack: contextlib.ExitStack) -> None:
    port = free_port()
    records = setting.folder / "mlflow"
    records.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{records / 'mlflow.db'}"]
    command += ["--artifacts-destination", (records / "artifacts").as_uri()]
    variables = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}

    def start() -> None:
        with (setting.folder / "mlflow.txt").open("ab") as log:
            setting.mlflow_server = subprocess.Popen(
                command, env=_clean_environment() | variables, stdout=log, stderr=log, process_group=0
            )
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert setting.mlflow_server.poll() is None, (setting.folder / "mlflow.txt").read_text()
            time.sleep(0.2)

    def stop() -> None:
        assert setting.mlflow_server
        with contextlib.suppress(ProcessLookupError):
            os.killpg(setting.mlflow_server.pid, signal.SIGKILL)
        setting.mlflow_server.wait()

    start()
    setting.restart_mlflow = lambda: (stop(), start())[1]
    stack.callback(stop)
    setting.mlflow = Forwarder(port)
    setting.variables["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{setting.mlflow.port}"


def _start_prefect(setting: Setting, stack: contextlib.ExitStack) -> None:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    variables = {"PREFECT_HOME": str(setting.folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with (setting.folder / "prefect.txt").open("ab") as log:
        server = subprocess.Popen(command, env=_clean_environment() | variables, stdout=log, stderr=log)
    stack.callback(server.wait)
    stack.callback(server.kill)
    while not answers(f"http://127.0.0.1:{port}/api/health"):
        assert server.poll() is None, (setting.folder / "prefect.txt").read_text()
        time.sleep(0.2)
    setting.prefect = Forwarder(port)
    setting.variables["PREFECT_API_URL"] = f"http://127.0.0.1:{setting.prefect.port}/api"


def _use_postgres(setting: Setting, address: str, name: str) -> None:
    from sqlalchemy import create_engine, make_url

    engine = create_engine(address, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f'DROP DATABASE IF EXISTS "{name}"')
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
    url = make_url(address).set(database=name)
    setting.postgres = Forwarder(url.port or 5432)
    through = url.set(host="127.0.0.1", port=setting.postgres.port)
    setting.variables["SDLORA_DATABASE_URL"] = through.render_as_string(hide_password=False)


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


def _use_false_clock(setting: Setting) -> None:
    library = next(Path("/usr/lib").rglob("libfaketime.so.1"))
    # With a true monotonic clock, libfaketime 0.9.10 fails every time.sleep of Python 3.11 with EINVAL.
    source, sleep = setting.folder / "sleep.c", setting.folder / "sleep.so"
    source.write_text(_SLEEP)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(sleep), str(source)], check=True)
    setting.clock = setting.folder / "clock"
    setting.clock.write_text("+0")
    setting.variables |= {
        "LD_PRELOAD": f"{sleep}:{library}",
        "FAKETIME_TIMESTAMP_FILE": str(setting.clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _clean_environment() -> dict[str, str]:
    prefixes = ("PREFECT_", "MLFLOW_", "SDLORA_")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


def titles() -> dict[str, str]:
    """Return the titles of all faults by name, for the usual length of an absence."""
    return {name: fault.name for name, fault in faults(20.0).items()} | STACK_FAULTS


def missing(fault: Fault, postgres: str | None) -> str | None:
    """Return why a fault cannot be tried here; None if it can."""
    if "postgres" in fault.needs and postgres is None:
        return "no --postgres"
    if "clock" in fault.needs and not list(Path("/usr/lib").rglob("libfaketime.so.1")):
        return "libfaketime is not installed"
    if "clock" in fault.needs and not shutil.which("cc"):
        return "no C compiler"
    if "small disk" in fault.needs and os.geteuid() != 0:
        return "only root can mount a small disk"
    return None


def measure(options: argparse.Namespace, folder: Path, on_cells: Callable[[list[Cell]], None]) -> None:
    """Run the chains, one after the other; `on_cells` gets the cells of each."""
    generator = random.Random(options.seed)  # noqa: S311  # moments of faults
    images, base = draw_images(folder / "images", 24, seed=0), tiny_base_model(folder / "tiny")
    undisturbed: dict[tuple[str, ...], tuple[dict[str, float], tuple[str, int, int]]] = {}
    for name in options.faults.split(","):
        if name in STACK_FAULTS:
            measure_stack(name, options, generator, folder, images, base, on_cells)
            continue
        fault = faults(options.away)[name]
        if reason := missing(fault, options.postgres):
            print(f"{fault.name}: not run, {reason}", flush=True)
            continue
        if fault.needs not in undisturbed:
            place = folder / f"undisturbed-{name}"
            with setting_for(fault, place, images, base, options.postgres) as setting:
                assert setting.start().wait(PATIENCE_SECONDS) == 0, (setting.folder / "output.txt").read_text()
                undisturbed[fault.needs] = setting.stage_seconds(), verdict(setting)
                print(f"undisturbed: {sum(undisturbed[fault.needs][0].values()):.1f} s in the stages", flush=True)
        usual, expected = undisturbed[fault.needs]
        with setting_for(fault, folder / name, images, base, options.postgres) as setting:
            chain = run_chain(fault, setting, usual, generator, options.stages.split(","))
            if chain.problem is None and verdict(setting) != expected:
                chain.problem = f"other result {verdict(setting)}, expected {expected}"
            seconds = setting.stage_seconds()
            lost = {stage: seconds[stage] - usual[stage] - setting.paused_seconds[stage] for stage in STAGES}
            output = (setting.folder / "output.txt").read_text()
        on_cells(cells_of(name, chain, lost))
        print(f"{fault.name}: {chain.problem or 'as it should be'}, {sum(lost.values()):.1f} s lost", flush=True)
        if chain.problem:
            print(output[-3000:], flush=True)


def measure_stack(
    name: str,
    options: argparse.Namespace,
    generator: random.Random,
    folder: Path,
    images: Path,
    base: Path,
    on_cells: Callable[[list[Cell]], None],
) -> None:
    """Strike a running `sdlora up`; its adapter has to be that of an undisturbed run in a terminal."""
    calm = faults(0)["killed"]
    with setting_for(calm, folder / f"undisturbed-{name}", images, base, None) as setting:
        assert setting.start().wait(PATIENCE_SECONDS) == 0, (setting.folder / "output.txt").read_text()
        expected = verdict(setting)
    with setting_for(calm, folder / name, images, base, None) as setting:
        struck = {stage: STACK_TASKS[stage] for stage in options.stages.split(",")}
        rows, problem = run_stack(name, setting.home, setting.config, setting.variables, struck, generator)
        if problem is None and (found := verdict(setting)) != expected:
            problem = f"other result {found}, expected {expected}"
    on_cells(cells_of(name, Chain(rows, problem), None))
    print(f"{STACK_FAULTS[name]}: {problem or 'as it should be'}", flush=True)


def cells_of(name: str, chain: Chain, lost_seconds: Mapping[str, float] | None) -> list[Cell]:
    """Return the cells of a chain. A problem counts for all stages that were struck: one of them caused it."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=False
    ).stdout.strip()
    today, load = f"{datetime.now(UTC):%Y-%m-%d}", os.getloadavg()[0]
    return [
        Cell(
            name,
            stage,
            f"{outcome}: {chain.problem}" if chain.problem and outcome != NOT_REACHED else outcome,
            None if lost_seconds is None or chain.problem or outcome == NOT_REACHED else lost_seconds[stage],
            load,
            today,
            commit,
        )
        for stage, outcome in chain.rows.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", default=",".join([*faults(20), *STACK_FAULTS]))
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--away", type=float, default=20.0)
    parser.add_argument("--postgres", help="address of a server on this machine; databases are made there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, default=PROJECT / "benchmarks" / "crashes.json")
    parser.add_argument("--page", type=Path, help="write the page here; with --faults '' from the record alone")
    parser.add_argument("--child", nargs=3, metavar=("HOME", "CONFIG", "MARKS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_marked(*map(Path, arguments.child))
        return
    if arguments.faults:
        folder = Path(tempfile.mkdtemp(prefix="sdlora-crashes-"))
        try:
            measure(arguments, folder, lambda cells: (add_cells(arguments.record, cells), None)[1])
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    text = page(read_cells(arguments.record), titles(), STAGES)
    if arguments.page:
        arguments.page.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
