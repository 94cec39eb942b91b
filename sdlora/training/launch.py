"""Fine-tune in this process, or in several that share each step's images.

python -m sdlora.training.launch REQUEST.json    # what each of the several processes runs
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from sdlora.artifacts import AdapterRef, BaseModelRef
from sdlora.data import load_snapshot
from sdlora.errors import SdloraError, TrainingError
from sdlora.frozen import FrozenConfig
from sdlora.launching import launch_command
from sdlora.lora.config import LoraConfig
from sdlora.lora.load import open_adapter
from sdlora.progress import OnMetrics, OnProgress
from sdlora.store import ImageStore
from sdlora.training.config import TrainingConfig
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.results import ADAPTER_FOLDER
from sdlora.training.samples import OnSamples

_SECONDS_TO_SAVE = 30


class FineTuneRequest(FrozenConfig):
    """Everything a process needs to know to take part."""

    home: Path
    base: BaseModelRef
    snapshot_digest: str
    lora: LoraConfig
    training: TrainingConfig
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
    """Run a request in `training.num_processes` processes; one runs here, several through `accelerate launch`.

    The first process of several writes; if one fails, all end. On Ctrl-C or SIGTERM they save and end.

    Raises:
        TrainingError: one of several processes failed; the message is its own.
        SdloraError: as `fine_tune` does.
    """
    if request.training.num_processes == 1:
        return _run(request, store, on_metrics, on_progress, on_samples)
    request.folder.mkdir(parents=True, exist_ok=True)
    file = request.folder / "request.json"
    file.write_text(request.model_dump_json(indent=2, exclude_unset=True))
    failure = ""
    count, gpu = request.training.num_processes, torch.cuda.is_available()
    command = launch_command("sdlora.training.launch", str(file), count, gpu=gpu)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launched:
        assert launched.stdout is not None
        try:
            for line in launched.stdout:
                kind, values = _report(line)
                if kind == "failure":
                    failure = failure or values[0]
                elif kind == "metrics" and on_metrics:
                    on_metrics(values[0], values[1])
                elif kind == "progress" and on_progress:
                    on_progress(values[0], values[1], values[2])
                elif kind == "samples" and on_samples:
                    on_samples(values[0], Path(values[1]))
        except BaseException:
            launched.send_signal(signal.SIGTERM)
            launched.wait(_SECONDS_TO_SAVE)
            raise
    if launched.returncode != 0:
        raise TrainingError(
            failure
            or f"training: a process of {request.training.num_processes} ended with code {launched.returncode}; its "
            "message is above. The last checkpoint is kept: the same command continues."
        )
    return open_adapter(request.folder / ADAPTER_FOLDER)


def _report(line: str) -> tuple[str, list[Any]]:
    try:
        report = json.loads(line)
        return report["kind"], report["values"]
    except (ValueError, TypeError, KeyError):
        return "", []  # something else wrote to the standard output


def _run(
    request: FineTuneRequest,
    store: ImageStore,
    on_metrics: OnMetrics | None,
    on_progress: OnProgress | None,
    on_samples: OnSamples | None,
) -> AdapterRef:
    return fine_tune(
        request.base,
        load_snapshot(store, request.snapshot_digest),
        store,
        request.lora,
        request.training,
        request.folder,
        name=request.name,
        on_metrics=on_metrics,
        on_progress=on_progress,
        on_samples=on_samples,
    )


def _tell(kind: str, *values: Any) -> None:
    print(json.dumps({"kind": kind, "values": values}, default=str), flush=True)


def _take_part(file: Path) -> None:
    request = FineTuneRequest.model_validate_json(file.read_text())
    try:
        with ImageStore.open(request.home) as store:
            _run(
                request,
                store,
                lambda step, values: _tell("metrics", step, dict(values)),
                lambda stage, done, total: _tell("progress", stage, done, total),
                lambda step, path: _tell("samples", step, path),
            )
    except SdloraError as error:
        _tell("failure", str(error))
        sys.exit(1)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    _take_part(Path(sys.argv[1]))
