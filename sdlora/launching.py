"""How several processes are started on one machine."""

from __future__ import annotations

import socket
import sys


def launch_command(module: str, argument: str, processes: int, *, gpu: bool) -> list[str]:
    """The command that runs `python -m module argument` as so many processes that know of each other.

    Args:
        module: a module that makes an `accelerate.Accelerator`.
        argument: its one argument.
        processes: how many, at least 2.
        gpu: one GPU for each; else they share the processor through gloo.
    """
    if gpu:
        command = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1"]
        command += ["--num_processes", str(processes), "--main_process_port", "0"]
        command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    else:
        # Without a GPU `accelerate launch` starts one process only, whatever it is asked for, unless MPI is there.
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--master_addr", "127.0.0.1"]
        command += ["--nproc_per_node", str(processes), "--master_port", str(_free_port())]
    return [*command, "-m", module, argument]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
