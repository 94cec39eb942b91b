"""Regular fine-tuning: the same training loop over all weights of the denoiser."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import Tensor

from sdlora.core.errors import StorageError, WeightsError
from sdlora.core.files import replace_file, written_aside
from sdlora.core.progress import SILENT, Listener
from sdlora.core.refs import BaseModelRef
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.families import find_layout
from sdlora.models.files.digests import record_digests
from sdlora.models.files.sources import load_base_model
from sdlora.models.progress_bars import no_progress_bars
from sdlora.processes.threads import restored_threads
from sdlora.records.choice import CHOICE_FILE
from sdlora.store.image_store import ImageStore
from sdlora.training.job import TrainingJob
from sdlora.training.judging import choosing
from sdlora.training.loop import Run
from sdlora.training.run_folder import MODEL_FOLDER, claim, exclusive, snapshot_of_run
from sdlora.training.setup import prepare_run, run_record
from sdlora.training.suitability import check_rows
from sdlora.training.takedown import stopping_at_takedown


def fine_tune_fully(job: TrainingJob, store: ImageStore, listener: Listener = SILENT) -> BaseModelRef:
    """Train all weights of the denoiser and write the model as a diffusers folder, `model` in the run's folder.

    Data, batches, noise, checkpoints, choice by validation and exact resume are the same as in `fine_tune`. The
    autoencoder and the text encoders stay those of the base. Runs in one process.

    Args:
        job: what to train, with `lora` None; the usual rate is a tenth of an adapter's. A finished model is returned.
        store: holds the images' bytes; its `home` holds the caches.
        listener: receives progress, metrics and samples.

    Raises:
        ConfigError: `base_model.quantize` is set.
        TakedownError: an image of the snapshot was purged.
        TrainingError: no training rows, a folder in use or of another run, or a loss that is not finite.
        WeightsError: the base is damaged, or the model read back differs from the trained one.
        StorageError: the disk is full; the last good checkpoint is kept.
        KeyboardInterrupt: SIGINT or SIGTERM, after a checkpoint.
    """
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    job = replace(job, snapshot=snapshot_of_run(job.folder, job.snapshot, store))
    check_rows(job.snapshot, job.config)
    model = job.folder / MODEL_FOLDER
    with restored_threads(), exclusive(job.folder), stopping_at_takedown(store, job.snapshot, job.folder):
        if model.is_dir():
            claim(job.folder, run_record(job, accelerator, store.home))  # raises if the model belongs to another run
        else:
            run = prepare_run(job, store, accelerator, listener)
            run.train()
            _write_model(run, model)
            for leftover in ("checkpoints", choosing.FOLDER):
                shutil.rmtree(job.folder / leftover, ignore_errors=True)
        return open_model(job.folder, store.home)


def open_model(folder: Path, home: Path) -> BaseModelRef:
    """Open the finished model of a run folder.

    Raises:
        WeightsError: missing or damaged.
    """
    return load_base_model(BaseModelConfig(source=str(folder / MODEL_FOLDER)), home)


def _write_model(run: Run, model: Path) -> None:
    """Write the chosen weights as a copy of the base's folder with the trained denoiser."""
    choice = run.chooser.choice(run.done)
    replace_file(run.folder / CHOICE_FILE, f"{choice.model_dump_json(indent=2)}\n".encode())
    if choice.rule == "last":
        with run.learner.averaged():
            _save(run, model)
        return
    assert run.chooser.best is not None
    weights = run.chooser.weights_of(run.chooser.best)
    run.learner.assign([weights[name] for name in run.learner.parameters])
    _save(run, model)


def _save(run: Run, model: Path) -> None:
    base = run.job.base
    denoiser_folder = find_layout(base.folder).denoiser
    try:
        with written_aside(model) as partial:
            shutil.copytree(
                base.folder, partial, ignore=lambda folder, _: _skipped(Path(folder), base.folder, denoiser_folder)
            )
            with no_progress_bars():
                run.denoiser.save_pretrained(partial / denoiser_folder, safe_serialization=True)
            written = parts.load_denoiser(BaseModelRef(name=base.name, folder=partial, digest=""))
            differing = _differing_names(run.denoiser.state_dict(), written.state_dict())
            if differing:
                raise WeightsError(f"The trained model read back differs in {differing[:3]}. Check the disk.")
            record_digests(partial)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"Cannot write the model to {model}: {error}. Free some space and run again; training is not lost."
        ) from error


def _skipped(folder: Path, base_folder: Path, denoiser_folder: str) -> set[str]:
    """Name the files not to copy: the base's denoiser, hidden files and documents."""
    names = {path.name for path in folder.iterdir() if path.name.startswith(".") or path.suffix == ".md"}
    return names | ({denoiser_folder} if folder == base_folder else set())


def _differing_names(trained: dict[str, Tensor], written: dict[str, Tensor]) -> list[str]:
    return sorted(trained.keys() ^ written.keys()) or [
        name for name in trained if not torch.equal(trained[name].cpu(), written[name].cpu())
    ]
