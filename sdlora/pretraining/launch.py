"""Pretraining on a snapshot of the image database, in this process or in several worker processes.

python -m sdlora.pretraining.launch REQUEST.json    # command of a worker process
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sdlora.core.config_base import FrozenConfig
from sdlora.core.files import replace_file
from sdlora.data.pixels import load_images_uint8
from sdlora.data.snapshot import load_snapshot
from sdlora.data.takedown import TakedownWatch
from sdlora.pretraining.config import PretrainConfig
from sdlora.pretraining.forget import MODEL_FOLDER, REQUEST_FILE, STAGES_FOLDER
from sdlora.pretraining.pretrain import OnStageMetrics, pretrain
from sdlora.processes.subprocesses import report, run_subprocess, worker_main
from sdlora.store.image_store import ImageStore


class PretrainRequest(FrozenConfig):
    """Request that a worker process reads: the snapshot, the folder and the settings."""

    home: Path
    snapshot_digest: str
    folder: Path
    config: PretrainConfig


def pretrain_snapshot(request: PretrainRequest, processes: int = 1, on_metrics: OnStageMetrics | None = None) -> Path:
    """Pretrain on the snapshot's train split; with `processes` > 1 the processes share each batch.

    On CPUs, one process per core is steadier than one process with many threads. The batches of the autoencoder depend
    on the number of processes, so a run must continue with its initial number.

    Returns:
        The finished diffusers folder.
    Raises:
        TakedownError: an image of the snapshot was purged; the checkpoints are removed.
        TrainingError: a worker process failed, with the worker's own message, or was killed.
    """
    file = request.folder / REQUEST_FILE
    replace_file(file, request.model_dump_json(indent=2).encode())  # a takedown finds the folder by it
    if processes == 1:
        return _run(request, on_metrics)

    def on_report(_kind: str, values: list[Any]) -> None:
        if on_metrics:
            on_metrics(values[0], values[1], values[2])

    gpu = torch.cuda.is_available()
    log = request.folder / "processes.log"
    run_subprocess("sdlora.pretraining.launch", str(file), processes, log, on_report, gpu=gpu)
    return request.folder / MODEL_FOLDER


def _run(request: PretrainRequest, on_metrics: OnStageMetrics | None) -> Path:
    with ImageStore.open(request.home) as store:
        snapshot = load_snapshot(store, request.snapshot_digest)
        rows, watch = snapshot.train, TakedownWatch(store, snapshot)

        def on_watched_metrics(stage: str, step: int, values: Mapping[str, float]) -> None:
            if watch.found():
                watch.refuse()
            if on_metrics:
                on_metrics(stage, step, values)

        try:
            watch.refuse()
            images_uint8 = load_images_uint8(store, rows, request.config.resolution)
            captions = [row.captions for row in rows]
            model = pretrain(images_uint8, captions, request.config, request.folder, on_watched_metrics)
            watch.refuse()
        except Exception as error:
            if not watch.found(at_once=True):
                raise
            for name in (STAGES_FOLDER, MODEL_FOLDER):
                shutil.rmtree(request.folder / name, ignore_errors=True)
            raise watch.error(watch.purged()) from error
    return model


def _work(file: Path) -> None:
    request = PretrainRequest.model_validate_json(file.read_text())
    _run(request, lambda stage, step, values: report("metrics", stage, step, dict(values)))


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    worker_main(lambda: _work(Path(sys.argv[1])))
