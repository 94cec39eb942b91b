"""Regular fine-tuning: the loop that trains adapters, over all weights of the denoiser."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import Tensor

from sdlora.core.errors import StorageError, WeightsError
from sdlora.core.progress import OnMetrics, OnProgress
from sdlora.core.refs import BaseModelRef
from sdlora.data.snapshot import Snapshot
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.families import find_layout
from sdlora.models.files.sources import load_base_model, verify
from sdlora.models.quiet import no_progress_bars
from sdlora.records.choice import CHOICE_FILE
from sdlora.store import ImageStore
from sdlora.training.config import ResolvedTraining
from sdlora.training.fine_tuning import encode_snapshot, prepare_run, record_of
from sdlora.training.identity import run_digest
from sdlora.training.inputs.prior import PRIOR_SHEET, encode_prior
from sdlora.training.judging import choosing
from sdlora.training.judging.drawn_validation import drawn_validation_of
from sdlora.training.loop import Run
from sdlora.training.run_folder import claim, exclusive, write_text
from sdlora.training.suitability import check_rows, check_settings

MODEL_FOLDER = "model"


def fine_tune_fully(
    base: BaseModelRef,
    snapshot: Snapshot,
    store: ImageStore,
    config: ResolvedTraining,
    folder: Path,
    *,
    on_metrics: OnMetrics | None = None,
    on_progress: OnProgress | None = None,
) -> BaseModelRef:
    """Train all weights of the denoiser and write the model as a diffusers folder, `folder/model`.

    Everything else is as in `fine_tune`: the same data, batches and noise, checkpoints, choice by measurement and
    exact resume. The autoencoder and the text encoders stay the base's. In one process.

    Args:
        base: where to start.
        snapshot: what to train and to validate on.
        store: holds the images' bytes; its `home` holds the caches.
        config: how long and how fast; a tenth of an adapter's rate is usual.
        folder: the run's own folder; an unfinished run found there is continued, a finished one returned.
        on_metrics: as in `fine_tune`.
        on_progress: as in `fine_tune`.

    Raises:
        ConfigError: the base is to be quantised.
        TrainingError: no training rows, a folder in use or of another run, or a loss that is not finite.
        WeightsError: the base is damaged, or the model read back is not what was trained.
        StorageError: the disk is full; the last good checkpoint is kept.
        KeyboardInterrupt: after SIGINT or SIGTERM, when the work is saved.
    """
    digest = run_digest(base.digest, snapshot.digest, None, config)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    check_rows(snapshot, config)
    check_settings(base, None, config, 1)
    model = folder / MODEL_FOLDER
    with exclusive(folder):
        started = record_of(base, snapshot, None, config, digest, accelerator.device, 1, store.home)
        record = claim(folder, started)
        if not model.is_dir():
            verify(base, store.home)
            torch.set_num_threads(record["threads"])
            encoded, held_out = encode_snapshot(base, snapshot, store, config, folder, accelerator.device, on_progress)
            prior = encode_prior(base, config, store.home, accelerator.device, on_progress, sheet=folder / PRIOR_SHEET)
            run = prepare_run(accelerator, base, None, config, record, encoded, held_out, folder, prior)
            run.on_metrics, run.on_progress = on_metrics, on_progress
            run.drawn_validation = drawn_validation_of(base, snapshot, store, config)
            run.train()
            _write_model(run, base, model)
            for leftover in ("checkpoints", choosing.FOLDER):
                shutil.rmtree(folder / leftover, ignore_errors=True)
        return open_model(folder, store.home)


def open_model(folder: Path, home: Path) -> BaseModelRef:
    """The finished model of a run folder.

    Raises:
        WeightsError: missing or damaged.
    """
    return load_base_model(BaseModelConfig(source=str(folder / MODEL_FOLDER)), home)


def _write_model(run: Run, base: BaseModelRef, model: Path) -> None:
    """The base's folder with the trained denoiser in it; read back before it takes its name."""
    choice = run.chooser.choice(run.done)
    write_text(run.folder / CHOICE_FILE, choice.model_dump_json(indent=2) + "\n")
    if choice.rule == "last":
        with run.learner.averaged():
            _save(run, base, model)
        return
    assert run.chooser.best is not None
    weights = run.chooser.weights_of(run.chooser.best)
    run.learner.assign([weights[name] for name in run.learner.parameters])
    _save(run, base, model)


def _save(run: Run, base: BaseModelRef, model: Path) -> None:
    denoiser_folder = find_layout(base.folder).denoiser
    partial = model.with_name(f".{model.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(
            base.folder, partial, ignore=lambda place, _: _skipped(Path(place), base.folder, denoiser_folder)
        )
        with no_progress_bars():
            run.denoiser.save_pretrained(partial / denoiser_folder, safe_serialization=True)
        written = parts.load_denoiser(BaseModelRef(name=base.name, folder=partial, digest=""))
        wrong = _differences(run.denoiser.state_dict(), written.state_dict())
        if wrong:
            raise WeightsError(f"The trained model read back differs in {wrong[:3]}. Check the disk.")
        partial.rename(model)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"Cannot write the model to {model}: {error}. Free some space and run again; training is not lost."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _skipped(place: Path, base: Path, denoiser: str) -> set[str]:
    """The base's own denoiser weights, and what is no part of a model: hidden files and documents."""
    names = {path.name for path in place.iterdir() if path.name.startswith(".") or path.suffix == ".md"}
    return names | ({denoiser} if place == base else set())


def _differences(meant: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    return sorted(meant.keys() ^ found.keys()) or [
        name for name in meant if not torch.equal(meant[name].cpu(), found[name].cpu())
    ]
