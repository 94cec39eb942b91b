"""Faults: a kill, a stop, a cancellation, a reboot, a full disk, a clock that is set, at a moment of a run.

The moment is recognised by the files that are there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import psutil

from tests.soak import records
from tests.soak.asked import Asked
from tests.soak.plan import Fault
from tests.soak.system import System
from tests.soak.waiting import wait_until
from tests.soak.world import QUIET_SECONDS

_POLL_SECONDS = 0.05
_ASK_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 600.0


def run_folders(home: Path, style: str) -> set[Path]:
    """Return the folders of a style's runs that have no version yet; a clean-up deletes the release of some that do."""
    published = {str(entry.run_digest)[:16] for entry in records.history_of(home, style)}
    return {folder for folder in home.glob(f"runs/{style}/*") if folder.is_dir() and folder.name not in published}


def strike(system: System, fault: Fault, asked: Asked) -> str:
    """Wait for the fault's moment of a run, and let it happen; return what happened, in words.

    A run that ends before the moment is struck too, after its end.
    """
    early = _await_moment(system, fault, asked)
    if fault.kind == "lose":
        return _leave_to_reconcile(system, fault, asked) + early
    if fault.at != "ready":  # right after it, before the run is created and its event is handled
        time.sleep(fault.delay_seconds)
    if fault.kind == "cancel":
        return _cancel(system, fault, asked) + early
    if _strike_machine(system, fault, asked):
        return f"{fault}{early}"
    process = _victim(system, fault, asked)
    if process is None:
        return f"{fault}: there was no {fault.victim} any more{early}"
    if fault.kind == "kill":
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        _forget(system, asked, process)
    else:
        _pause(process, fault.lasting_seconds)
    return f"{fault}{early}"


def _await_moment(system: System, fault: Fault, asked: Asked) -> str:
    """Wait for the fault's moment; return why it strikes without it, empty if the moment has come."""
    deadline = time.monotonic() + _LONGEST_WAIT_SECONDS
    ask_at = time.monotonic()
    while fault.at != "start" and not _is_reached(system.home, fault, asked):
        if time.monotonic() >= ask_at:  # a question to Prefect's server at each look would keep a core busy
            if system.has_ended(asked):
                return ", after its end"
            ask_at = time.monotonic() + _ASK_SECONDS
        if time.monotonic() > deadline:
            return ", which it did not reach in time"
        time.sleep(_POLL_SECONDS)
    return ""


def _strike_machine(system: System, fault: Fault, asked: Asked) -> bool:
    """Let a fault of the machine happen; return False for all others."""
    machine = system.machine
    if fault.kind == "reboot":
        _kill_everything(system, asked)
    elif fault.kind == "fill":
        assert machine.disk
        machine.disk.fill(fault.lasting_seconds)
    elif fault.kind == "set":
        machine.set_clock(fault.lasting_seconds)
    elif fault.victim == "postgres":
        assert machine.postgres
        machine.postgres.kill(fault.lasting_seconds)
    else:
        return False
    return True


def _kill_everything(system: System, asked: Asked) -> None:
    """Kill all processes at once, as a reboot does after its time-out; `recover` starts `sdlora up` again."""
    killed = system.processes()
    for process in killed:
        with contextlib.suppress(psutil.Error):
            process.kill()
    for process in killed:
        _forget(system, asked, process)


def _is_reached(home: Path, fault: Fault, asked: Asked) -> bool:
    if fault.at == "collected":
        return asked.arriving <= records.members_of(home, asked.style).keys()
    if fault.at == "ready":
        return any(start.id > asked.starts_before for start in records.starts_of(home, asked.style))
    folders = run_folders(home, asked.style)
    if fault.at == "collect":
        names = {path.name for path in home.glob("alive/*")}
        return asked.flow_run_id in names if asked.flow_run_id else bool(names)
    marker = {"train": "mlflow_run.txt", "duel": "adapter/adapter.json", "publish": "evaluation/duel.json"}[fault.at]
    return any((folder / marker).exists() for folder in folders)


def _victim(system: System, fault: Fault, asked: Asked) -> psutil.Process | None:
    if fault.victim == "run":
        return system.flow_run_process(asked)
    found = system.long_lived().get(fault.victim)
    return found[0] if found else None


def _forget(system: System, asked: Asked, process: psutil.Process) -> None:
    """Wait until the killed process is gone, so that nothing takes it for alive."""
    children = [system.stack.process if system.stack else None, asked.process]
    for child in children:
        if child is not None and child.pid == process.pid:
            child.wait(120)  # psutil would take the exit status of a child, and a killed run would count as completed
            return
    with contextlib.suppress(psutil.Error):
        process.wait(10)


def _pause(process: psutil.Process, seconds: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGCONT)


def _leave_to_reconcile(system: System, fault: Fault, asked: Asked) -> str:
    """Stop the watcher before it decides and kill Prefect's server; `reconcile`, as its clock does, starts the run."""
    watcher = system.long_lived().get("watcher")
    if not watcher:
        return f"{fault}: there was no watcher"
    for process in watcher:
        process.suspend()
    try:
        if any(start.id > asked.starts_before for start in records.starts_of(system.home, asked.style)):
            return f"{fault}: the watcher had decided"
        # The settings of the deployment tell `reconcile` that new images start runs of the style.
        wait_until(lambda: system.has_trigger(asked.style), 300, f"the deployment of {asked.style} to have its trigger")
        server = system.long_lived()["prefect"][0]
        server.kill()
        _forget(system, asked, server)
        time.sleep(QUIET_SECONDS)
        system.recover()
        deployment = system.api("deployments/name/reconcile/reconcile")
        reconcile = Asked(asked.style, flow_run_id=system.create_run(deployment["id"], {}))
        system.wait(reconcile, _LONGEST_WAIT_SECONDS)
        begun = [one for one in records.starts_of(system.home, asked.style) if one.id > asked.starts_before]
        assert begun, f"reconcile did not start the run of {asked.style}: {reconcile.state}: {reconcile.message}"
    finally:
        for process in watcher:
            with contextlib.suppress(psutil.Error):
                process.resume()
    return f"{fault}: reconcile started the run"


def _cancel(system: System, fault: Fault, asked: Asked) -> str:
    """Cancel as a person does: on the page, by Ctrl-C in the terminal, or by the command."""
    if system.has_ended(asked):
        return f"{fault}: it had ended"
    if asked.process is not None:
        asked.process.send_signal(signal.SIGINT)
        return f"{fault}, by Ctrl-C"
    if fault.delay_seconds > 0.75:
        done = system.command("cancel", asked.style)
        if done.returncode == 0:
            return f"{fault}, by command"
    state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    system.api(f"flow_runs/{asked.flow_run_id}/set_state", state)
    return f"{fault}, on the page"
