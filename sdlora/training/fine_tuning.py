"""Fine-tuning of an adapter on a snapshot, in a run folder from which an interrupted run continues."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import replace

import torch
from accelerate import Accelerator

from sdlora.core.errors import TrainingError
from sdlora.core.progress import SILENT, Listener
from sdlora.core.refs import AdapterRef
from sdlora.lora.load import open_adapter
from sdlora.processes.threads import restored_threads
from sdlora.store.image_store import ImageStore
from sdlora.training.job import TrainingJob
from sdlora.training.judging import choosing
from sdlora.training.results import write_adapters
from sdlora.training.run_folder import ADAPTER_FOLDER, exclusive, record_peak_size, snapshot_of_run
from sdlora.training.setup import prepare_run
from sdlora.training.suitability import check_rows
from sdlora.training.takedown import stopping_at_takedown


def fine_tune(job: TrainingJob, store: ImageStore, listener: Listener = SILENT) -> AdapterRef:
    """Train an adapter on the snapshot's training rows and write it to the folder `adapter` of the run's folder.

    With held-out images, `training.keep` chooses the step with the best validation. The second best goes to the folder
    `runner-up`, and `choice.json` holds the differences.

    Equal inputs give equal bytes on one machine with the same number of threads, even if the run was killed and
    restarted. A finished adapter is returned without training.

    Args:
        job: what to train, with `lora` set.
        store: holds the images' bytes; its `home` holds the caches.
        listener: receives progress, metrics and samples.

    Raises:
        TakedownError: an image of the snapshot was purged; nothing unpublished that learnt from it is kept.
        TrainingError: no training rows, a folder in use or of another run, or a loss that is not finite.
        ConfigError: a library is missing, or the adapter's method cannot be trained on a quantised base.
        TargetModuleError: the adapter does not fit the base model.
        WeightsError: the base model or a finished adapter is damaged.
        StorageError: the disk is full; the last good checkpoint is kept.
        KeyboardInterrupt: SIGINT or SIGTERM, after a checkpoint.
    """
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    job = replace(job, snapshot=snapshot_of_run(job.folder, job.snapshot, store))
    check_rows(job.snapshot, job.config)
    is_main = accelerator.is_main_process
    with (
        restored_threads(),
        exclusive(job.folder) if is_main else nullcontext(),
        stopping_at_takedown(store, job.snapshot, job.folder, cleans=is_main),
    ):
        finished = finished_adapter(job)
        if finished is not None:
            return finished
        run = prepare_run(job, store, accelerator, listener)
        run.train()
        if is_main:
            write_adapters(run)
            record_peak_size(job.folder)
            for leftover in ("checkpoints", choosing.FOLDER):
                shutil.rmtree(job.folder / leftover, ignore_errors=True)
        accelerator.wait_for_everyone()
        return open_adapter(job.folder / ADAPTER_FOLDER)


def finished_adapter(job: TrainingJob) -> AdapterRef | None:
    """Open the adapter of a finished run; None if the run has not ended.

    Raises:
        TrainingError: the folder holds the adapter of another run.
        WeightsError: the adapter is damaged.
    """
    if not (job.folder / ADAPTER_FOLDER).is_dir():
        return None
    adapter = open_adapter(job.folder / ADAPTER_FOLDER, job.base)
    if adapter.run_digest != job.digest:
        raise TrainingError(
            f"{job.folder} holds the finished adapter of the run {adapter.run_digest[:12]}, not of {job.digest[:12]}. "
            "Use another folder."
        )
    return adapter
