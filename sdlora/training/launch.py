"""Launch of a training job, in this process or in subprocesses.

python -m sdlora.training.launch JOB.json    # the command of each subprocess
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from sdlora.core.files import replace_file
from sdlora.core.progress import SILENT, Listener
from sdlora.core.refs import AdapterRef, BaseModelRef
from sdlora.data.snapshot import load_snapshot
from sdlora.lora.load import open_adapter
from sdlora.processes.costs import measured_costs
from sdlora.processes.memory import keep_freed_memory
from sdlora.processes.subprocesses import report, run_subprocess, worker_main
from sdlora.store.image_store import ImageStore
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.full import fine_tune_fully, open_model
from sdlora.training.job import TrainingJob
from sdlora.training.run_folder import ADAPTER_FOLDER, MODEL_FOLDER

LOG_FILE = "processes.log"


def run_job(job: TrainingJob, store: ImageStore, listener: Listener = SILENT) -> AdapterRef:
    """Train an adapter in `training.num_processes` processes: one runs here, several through a launcher.

    Of several processes the first one writes. If one fails, all end. On Ctrl-C or SIGTERM all save and end.

    Raises:
        TrainingError: one of several processes failed, with the message of that process.
        SdloraError: see `fine_tune`.
    """
    if job.config.num_processes == 1:
        return fine_tune(job, store, listener)
    run_job_in_subprocess(job, store.home, listener)
    return open_adapter(job.folder / ADAPTER_FOLDER)


def run_job_in_subprocess(job: TrainingJob, home: Path, listener: Listener = SILENT) -> None:
    """Train in subprocesses, even if there is only one; `costs.json` in the run folder holds the costs.

    Args:
        job: what to train; the store must hold its snapshot.
        home: state folder of the store.
        listener: receives progress, metrics and samples.

    Raises:
        TrainingError: a process was killed, or failed with the same message.
        KeyboardInterrupt: SIGINT or SIGTERM in this process or a subprocess, after a checkpoint.
    """

    def on_report(kind: str, values: list[Any]) -> None:
        if kind == "metrics":
            listener.on_metrics(values[0], values[1])
        elif kind == "progress":
            listener.on_progress(values[0], values[1], values[2])
        elif kind == "samples":
            listener.on_samples(values[0], Path(values[1]))

    file = write_job(job, home)
    count, gpu = job.config.num_processes, torch.cuda.is_available()
    run_subprocess("sdlora.training.launch", str(file), count, job.folder / LOG_FILE, on_report, gpu=gpu)


def run_alone(job: TrainingJob, home: Path, listener: Listener = SILENT) -> tuple[BaseModelRef, AdapterRef | None]:
    """Train in a subprocess, whose time and memory are the training's; open a finished run without training.

    Returns:
        The base and the adapter; without `job.lora` the trained model and None.

    Raises:
        TrainingError: the process was killed, or failed with the same message.
        WeightsError: the trained weights are damaged.
        KeyboardInterrupt: SIGINT or SIGTERM in this process or the subprocess, after a checkpoint.
    """
    result = job.folder / (MODEL_FOLDER if job.lora is None else ADAPTER_FOLDER)
    if not result.is_dir():
        run_job_in_subprocess(job, home, listener)
    if job.lora is None:
        return open_model(job.folder, home), None
    return job.base, open_adapter(result)


def write_job(job: TrainingJob, home: Path) -> Path:
    """Write the job to the run folder for another process, with the snapshot's digest instead of its rows.

    Raises:
        StorageError: the folder cannot be written.
    """
    file = job.folder / "job.json"
    values = TypeAdapter(TrainingJob).dump_python(job, mode="json", exclude={"snapshot"})
    text = json.dumps({"home": str(home), "snapshot": job.snapshot.digest, "job": values}, indent=2)
    replace_file(file, text.encode())
    return file


@contextmanager
def opened_job(file: Path) -> Iterator[tuple[TrainingJob, ImageStore]]:
    """Open the store of a written job, and load the job's snapshot from it."""
    written = json.loads(file.read_text())
    with ImageStore.open(Path(written["home"])) as store:
        values = {**written["job"], "snapshot": load_snapshot(store, written["snapshot"])}
        yield TypeAdapter(TrainingJob).validate_python(values), store


class _Reporter(Listener):
    """Listener that reports to the parent process."""

    def on_progress(self, stage: str, done: int, total: int) -> None:
        report("progress", stage, done, total)

    def on_metrics(self, step: int, values: Mapping[str, float]) -> None:
        report("metrics", step, dict(values))

    def on_samples(self, step: int, path: Path) -> None:
        report("samples", step, path)


def _work(file: Path) -> None:
    # Only the first process records costs, because all take about the same.
    costs = measured_costs(file.parent) if os.environ.get("RANK", "0") == "0" else nullcontext()
    with costs, opened_job(file) as (job, store):
        train = fine_tune_fully if job.lora is None else fine_tune
        train(job, store, _Reporter())


if __name__ == "__main__":
    keep_freed_memory()  # for the next step
    if "WORLD_SIZE" in os.environ:  # several processes share the cores
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    worker_main(lambda: _work(Path(sys.argv[1])))
