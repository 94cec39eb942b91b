"""Pretrain on a snapshot of the image database, in this process or in several that share the work.

python -m sdlora.pretraining.launch REQUEST.json    # what each of the several processes runs
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from sdlora.data.pixels import load_images_uint8
from sdlora.data.snapshot import load_snapshot
from sdlora.errors import TrainingError
from sdlora.frozen import FrozenConfig
from sdlora.launching import launch_command
from sdlora.pretraining.config import PretrainConfig
from sdlora.pretraining.pretrain import OnStageMetrics, pretrain
from sdlora.store import ImageStore


class PretrainRequest(FrozenConfig):
    """Everything a process needs to know to take part."""

    home: Path
    snapshot_digest: str
    folder: Path
    config: PretrainConfig


def pretrain_snapshot(request: PretrainRequest, processes: int = 1, on_metrics: OnStageMetrics | None = None) -> Path:
    """Pretrain on the snapshot's train split; `processes` > 1 share each batch.

    On CPUs, one process per core is steadier than one process with many threads. The number of processes
    changes which autoencoder batches are drawn, so a run is continued with the number it was begun with.

    Returns:
        The finished diffusers folder.
    Raises:
        TrainingError: one of several processes failed; its own output is on standard error.
    """
    if processes == 1:
        return _run(request, on_metrics)
    request.folder.mkdir(parents=True, exist_ok=True)
    file = request.folder / "request.json"
    file.write_text(request.model_dump_json(indent=2))
    gpu = torch.cuda.is_available()
    command = launch_command("sdlora.pretraining.launch", str(file), processes, gpu=gpu)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launched:
        assert launched.stdout is not None
        for line in launched.stdout:
            if on_metrics and line.startswith("{"):
                report = json.loads(line)
                on_metrics(report["stage"], report["step"], report["values"])
    if launched.returncode != 0:
        raise TrainingError(
            f"pretraining: a worker process ended with code {launched.returncode}; its message is above. "
            "The last checkpoints are kept: the same command continues."
        )
    return request.folder / "model"


def _run(request: PretrainRequest, on_metrics: OnStageMetrics | None) -> Path:
    with ImageStore.open(request.home) as store:
        rows = load_snapshot(store, request.snapshot_digest).train
        images_uint8 = load_images_uint8(store, rows, request.config.resolution)
    return pretrain(images_uint8, [row.captions for row in rows], request.config, request.folder, on_metrics)


def _print_report(stage: str, step: int, values: Mapping[str, float]) -> None:
    print(json.dumps({"stage": stage, "step": step, "values": dict(values)}), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    _run(PretrainRequest.model_validate_json(Path(sys.argv[1]).read_text()), _print_report)
