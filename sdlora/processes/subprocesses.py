"""Worker processes: start, reports, joint stop, and shutdown when the parent ends.

A worker writes one JSON line per report to standard output; its log goes to a file. Its standard input is a pipe on
which nothing is ever written. The pipe closes when the parent process ends for any reason.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, NoReturn

import psutil

from sdlora.core.errors import SdloraError, TrainingError

_logger = logging.getLogger(__name__)

OnReport = Callable[[str, list[Any]], None]
"""Called with the kind of a report and its values."""

SECONDS_TO_SAVE = 120.0
"""Time that workers have to save after a request to end; afterwards they are killed."""

_POLL_SECONDS = 0.5
_INTERRUPTED_EXIT_CODE = 130
_FINAL_REPORTS = ("failure", "broken", "stopped")


def launch_command(module: str, argument: str, processes: int, *, gpu: bool) -> list[str]:
    """Build the command that runs `python -m module argument` in one process or in several connected ones.

    Args:
        module: a module whose main program calls `worker_main`. With several processes, each process makes an
            `accelerate.Accelerator`.
        argument: the only argument of the module.
        processes: number of processes; 1 starts a plain process without a launcher.
        gpu: give each process one GPU; otherwise the processes share the CPU through gloo.
    """
    if processes == 1:
        command = [sys.executable]
    elif gpu:
        command = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1"]
        command += ["--num_processes", str(processes), "--main_process_port", "0"]
        command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    else:
        # Without a GPU and without MPI, `accelerate launch` always starts a single process.
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--master_addr", "127.0.0.1"]
        command += ["--nproc_per_node", str(processes), "--master_port", str(_free_port())]
    return [*command, "-m", module, argument]


def run_subprocess(module: str, argument: str, processes: int, log: Path, on_report: OnReport, *, gpu: bool) -> None:
    """Run `python -m module argument` in worker processes, wait for their end and pass on their reports.

    If the wait ends early (Ctrl-C, an error of `on_report`), the workers are asked once to save and end. Workers that
    are still running after `SECONDS_TO_SAVE` are killed. If this process is killed, the workers save and end by
    themselves.

    Args:
        module: as for `launch_command`.
        argument: as for `launch_command`.
        processes: number of workers.
        log: file to which the workers' standard error is appended.
        on_report: called with every report except the final status.
        gpu: as for `launch_command`.

    Raises:
        TrainingError: a worker failed, with the worker's own message, or was killed.
        KeyboardInterrupt: the workers were asked to stop, and have saved their work.
    """
    final_reports: list[tuple[str, str]] = []
    command = launch_command(module, argument, processes, gpu=gpu)
    with (
        log.open("ab") as log_file,
        # In a new session Ctrl-C in a terminal reaches only this process, which then asks the workers once.
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log_file, text=True, start_new_session=True
        ) as launched,
    ):
        lines: SimpleQueue[str | None] = SimpleQueue()
        threading.Thread(target=_read_lines, args=(launched, lines), daemon=True).start()

        def on_line(kind: str, values: list[Any]) -> None:
            if kind in _FINAL_REPORTS:
                final_reports.append((kind, str(values[0])))
            elif kind == "warning":
                _logger.warning("%s", values[0])
            elif kind:
                on_report(kind, values)

        try:
            _wait_for_reports(launched, lines, on_line, None)
        except BaseException:
            launched.terminate()
            with suppress(BaseException):  # a second Ctrl-C ends the wait
                _wait_for_reports(launched, lines, lambda _kind, _values: None, time.monotonic() + SECONDS_TO_SAVE)
            raise
        finally:
            _kill_all(launched)
    if launched.returncode != 0 or final_reports:
        _raise_failure(final_reports, processes, launched.returncode, log)


def report(kind: str, *values: Any) -> None:
    """Send a report to the parent process; do nothing if the parent no longer reads."""
    with suppress(OSError):
        os.write(sys.stdout.fileno(), f"{json.dumps({'kind': kind, 'values': values}, default=str)}\n".encode())


def worker_main(work: Callable[[], None]) -> None:
    """Run the main program of a worker that `run_subprocess` started: do the work, report the outcome, and exit."""
    signal.signal(signal.SIGTERM, _raise_interrupt)
    logging.getLogger("sdlora").addHandler(_WarningReporter(logging.WARNING))
    threading.Thread(target=_stop_when_parent_ends, daemon=True).start()
    try:
        work()
    except KeyboardInterrupt:
        report("stopped", "")
        sys.exit(_INTERRUPTED_EXIT_CODE)
    except SdloraError as error:
        report("failure", str(error))
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  # every failure is reported to the parent
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            report("failure", f"The disk is full ({error.filename or 'while writing'}). Free some space and run again.")
        else:
            # This is often only a consequence of another worker's end, so a "failure" report takes precedence.
            traceback.print_exc()
            report("broken", f"{type(error).__name__}: {error}")
        sys.exit(1)


class _WarningReporter(logging.Handler):
    """Logging handler that reports warnings to the parent process."""

    def emit(self, record: logging.LogRecord) -> None:
        report("warning", record.getMessage())


def _wait_for_reports(
    launched: subprocess.Popen[str], lines: SimpleQueue[str | None], on_line: OnReport, deadline: float | None
) -> None:
    """Pass on reports until all workers have closed their output, or until the deadline."""
    while deadline is None or time.monotonic() < deadline:
        if launched.poll() is not None and launched.stdin is not None:
            launched.stdin.close()  # workers that outlive their launcher are asked to end
        try:
            line = lines.get(timeout=_POLL_SECONDS)
        except Empty:
            continue
        if line is None:
            launched.wait()
            return
        on_line(*_parse_report(line))


def _read_lines(launched: subprocess.Popen[str], lines: SimpleQueue[str | None]) -> None:
    assert launched.stdout is not None
    with suppress(ValueError):  # the output was closed meanwhile
        for line in launched.stdout:
            lines.put(line)
    lines.put(None)


def _parse_report(line: str) -> tuple[str, list[Any]]:
    try:
        report = json.loads(line)
        return report["kind"], report["values"]
    except (ValueError, TypeError, KeyError):
        return "", []  # another library wrote to standard output


def _kill_all(launched: subprocess.Popen[str]) -> None:
    """Kill the remaining processes; children of the launcher have their own sessions."""
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(launched.pid).children(recursive=True) if launched.poll() is None else []
        for process in children:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    if launched.poll() is None:
        launched.kill()


def _raise_failure(final_reports: list[tuple[str, str]], processes: int, code: int, log: Path) -> NoReturn:
    """Raise the error that caused the end, not its consequences in other workers.

    When one worker ends, the launcher stops the remaining workers, or they fail while waiting for the ended worker.
    """
    failures = [message for kind, message in final_reports if kind == "failure"]
    if failures:
        raise TrainingError(failures[0])
    killed = code == -signal.SIGKILL or len(final_reports) < processes
    if not killed and ("stopped", "") in final_reports:
        raise KeyboardInterrupt
    remedy = f"The log is in {log}. The last checkpoint is kept: the same command continues."
    broken = [message for kind, message in final_reports if kind == "broken"]
    if killed:
        signal_name = f" ({signal.Signals(-code).name})" if code < 0 else ""
        raise TrainingError(
            f"A worker process was killed{signal_name}, as the system does when memory runs out. {remedy}"
        )
    raise TrainingError(f"A worker process failed: {broken[0] if broken else f'code {code}'}. {remedy}")


def _raise_interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    # Only once: a launcher and a service manager may both send SIGTERM, and the second must not interrupt the saving.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _stop_when_parent_ends() -> None:
    # os.read, because a thread that waits in sys.stdin.read keeps the interpreter from ending.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
