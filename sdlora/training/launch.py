"""Fine-tune in this process, or in one or several of its own.

python -m sdlora.training.launch REQUEST.json    # what each of those processes runs
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from sdlora.core.config_base import FrozenConfig
from sdlora.core.errors import StorageError
from sdlora.core.progress import OnMetrics, OnProgress
from sdlora.core.refs import AdapterRef, BaseModelRef
from sdlora.data.snapshot import load_snapshot
from sdlora.lora.config import ResolvedLora
from sdlora.lora.load import open_adapter
from sdlora.processes.costs import costs_of
from sdlora.processes.subprocesses import report, run_subprocess, worker_main
from sdlora.store import ImageStore
from sdlora.training.config import ResolvedTraining
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.full import fine_tune_fully
from sdlora.training.judging.samples import OnSamples
from sdlora.training.results import ADAPTER_FOLDER

LOG_FILE = "processes.log"


class FineTuneRequest(FrozenConfig):
    """Everything a process needs to know to take part; without `lora` all weights of the denoiser learn."""

    home: Path
    base: BaseModelRef
    snapshot_digest: str
    lora: ResolvedLora | None
    training: ResolvedTraining
    folder: Path
    name: str = "adapter"


def fine_tune_request(
    request: FineTuneRequest,
    store: ImageStore,
    *,
    on_metrics: OnMetrics | None = None,
    on_progress: OnProgress | None = None,
    on_samples: OnSamples | None = None,
) -> AdapterRef:
    """Train an adapter in `training.num_processes` processes; one runs here, several through a launcher.

    The first process of several writes; if one fails, all end. On Ctrl-C or SIGTERM they save and end.

    Raises:
        TrainingError: one of several processes failed; the message is its own.
        SdloraError: as `fine_tune` does.
    """
    if request.training.num_processes == 1:
        _run(request, store, on_metrics, on_progress, on_samples)
    else:
        train_in_subprocess(request, on_metrics=on_metrics, on_progress=on_progress, on_samples=on_samples)
    return open_adapter(request.folder / ADAPTER_FOLDER)


def train_in_subprocess(
    request: FineTuneRequest,
    *,
    on_metrics: OnMetrics | None = None,
    on_progress: OnProgress | None = None,
    on_samples: OnSamples | None = None,
) -> None:
    """Train in processes of their own, even if it is one; `folder/costs.json` tells what they took.

    Raises:
        TrainingError: a process failed, with its own message, or was killed.
        KeyboardInterrupt: SIGINT or SIGTERM, here or there, when the work is saved.
    """
    file = request.folder / "request.json"
    try:
        request.folder.mkdir(parents=True, exist_ok=True)
        file.write_text(request.model_dump_json(indent=2))
    except OSError as error:
        raise StorageError(f"Cannot write {file}: {error}. Free some space and run again.") from error

    def on_report(kind: str, values: list[Any]) -> None:
        if kind == "metrics" and on_metrics:
            on_metrics(values[0], values[1])
        elif kind == "progress" and on_progress:
            on_progress(values[0], values[1], values[2])
        elif kind == "samples" and on_samples:
            on_samples(values[0], Path(values[1]))

    count, gpu = request.training.num_processes, torch.cuda.is_available()
    run_subprocess("sdlora.training.launch", str(file), count, request.folder / LOG_FILE, on_report, gpu=gpu)


def _run(
    request: FineTuneRequest,
    store: ImageStore,
    on_metrics: OnMetrics | None,
    on_progress: OnProgress | None,
    on_samples: OnSamples | None,
) -> None:
    snapshot = load_snapshot(store, request.snapshot_digest)
    if request.lora is None:
        fine_tune_fully(
            request.base,
            snapshot,
            store,
            request.training,
            request.folder,
            on_metrics=on_metrics,
            on_progress=on_progress,
        )
        return
    fine_tune(
        request.base,
        snapshot,
        store,
        request.lora,
        request.training,
        request.folder,
        name=request.name,
        on_metrics=on_metrics,
        on_progress=on_progress,
        on_samples=on_samples,
    )


def _work(file: Path) -> None:
    request = FineTuneRequest.model_validate_json(file.read_text())

    def report_metrics(step: int, values: Mapping[str, float]) -> None:
        report("metrics", step, dict(values))

    # The first process writes; of several, each takes about as much.
    costs = costs_of(request.folder) if os.environ.get("RANK", "0") == "0" else nullcontext()
    with costs, ImageStore.open(request.home) as store:
        _run(
            request,
            store,
            report_metrics,
            lambda stage, done, total: report("progress", stage, done, total),
            lambda step, path: report("samples", step, path),
        )


if __name__ == "__main__":
    if "WORLD_SIZE" in os.environ:  # several processes share the cores
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    worker_main(lambda: _work(Path(sys.argv[1])))
