"""Set-up of a run, for adapters and for all weights: check settings, encode inputs, build networks."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import ModelMixin

from sdlora.core.errors import TrainingError
from sdlora.core.files import replace_file
from sdlora.core.progress import SILENT, Listener, OnProgress
from sdlora.core.refs import Precision
from sdlora.data.snapshot import SnapshotRow
from sdlora.data.takedown import TakedownWatch
from sdlora.lora.attach import adapter_parameters, attach_lora
from sdlora.models import parts
from sdlora.models.files.sources import verify
from sdlora.models.precision import remembered_probe
from sdlora.store.image_store import ImageStore
from sdlora.training.inputs.encoded import EncodedRows, Encoding, Inputs, encode_captions, encode_rows
from sdlora.training.inputs.prior import PRIOR_SHEET, encode_prior
from sdlora.training.job import TrainingJob
from sdlora.training.judging.drawn_validation import drawn_validation_of
from sdlora.training.judging.samples import samples_of
from sdlora.training.judging.validation import FixedNoiseValidation
from sdlora.training.learning.frozen_weights import cast_frozen_weights, fuse_lora_in_forward
from sdlora.training.learning.learner import Learner, TrainedGroup
from sdlora.training.learning.loss import DenoisingLoss
from sdlora.training.learning.preflight import resolve_micro_batch_size
from sdlora.training.learning.trained_text import TrainedText
from sdlora.training.loop import Run
from sdlora.training.run_folder import claim, snapshot_of_run
from sdlora.training.suitability import check_settings

_logger = logging.getLogger(__name__)


def prepare_run(job: TrainingJob, store: ImageStore, accelerator: Accelerator, listener: Listener = SILENT) -> Run:
    """Check the settings, record the run in its folder, encode its inputs and build what learns.

    Raises:
        ConfigError: a library is missing, or the job cannot be trained on a quantised base.
        TargetModuleError: the adapter does not fit the base model.
        TrainingError: the folder belongs to another run, or no image can be used.
        WeightsError: the base model is damaged.
        StorageError: the disk is full or not writable.
    """
    check_settings(job.base, job.lora, job.config, accelerator.num_processes)
    verify(job.base, store.home)
    with accelerator.main_process_first():  # the first process writes, the other processes read
        record = claim(job.folder, run_record(job, accelerator, store.home))
        job = replace(job, snapshot=snapshot_of_run(job.folder, job.snapshot, store))
        # The number of threads decides the order of sums: a continued run keeps its number.
        torch.set_num_threads(record["threads"])
        sheet = job.folder / PRIOR_SHEET if accelerator.is_main_process else None
        inputs = encode_inputs(job, store, accelerator.device, listener.on_progress, sheet)
        if inputs.prior and sheet:
            listener.on_samples(0, sheet)
    return _build_run(job, store, accelerator, record, inputs, listener)


def run_record(job: TrainingJob, accelerator: Accelerator, home: Path) -> dict[str, Any]:
    """Return the record of a new run: its digests, settings, precision, threads and processes."""
    return {
        "run_digest": job.digest,
        "base_digest": job.base.digest,
        "quantize": job.base.quantize,
        "snapshot_digest": job.snapshot.digest,
        "lora": job.lora and job.lora.model_dump(mode="json"),
        "training": job.config.model_dump(mode="json"),
        "precision": job.config.precision,
        "bf16_speedup": remembered_probe(accelerator.device.type, home).speedup,
        "threads": torch.get_num_threads(),
        "num_processes": accelerator.num_processes,
    }


def encode_inputs(
    job: TrainingJob, store: ImageStore, device: torch.device, on_progress: OnProgress, sheet: Path | None = None
) -> Inputs:
    """Look up or compute the tensors of the training rows, the held-out rows and the prior images.

    Args:
        job: the job; `skipped.json` in its folder names the images that cannot be used.
        store: holds the images' bytes; its `home` holds the caches.
        device: where the encoders run.
        on_progress: called with "encode images"; with `prior_weight` also with "draw prior images".
        sheet: path of an overview picture of the prior images, for people.

    Raises:
        TrainingError: no training image can be used.
        StorageError: a cache cannot be written; finished parts are kept.
        WeightsError: an encoder is damaged.
    """
    base, snapshot, config, tokens_only = job.base, job.snapshot, job.config, job.trains_text_encoders

    def encode(rows: Sequence[SnapshotRow], mirror: bool, masks: bool) -> EncodedRows:
        encoding = Encoding(config.resolutions, config.aspect_buckets, mirror, masks, tokens_only)
        return encode_rows(base, rows, store, encoding, device=device, on_progress=on_progress)

    masked_count = sum(bool(row.mask) for row in snapshot.train)
    if masked_count and config.masked_weight is None:
        _logger.warning(
            "%d images have masks, but without training.masked_weight every part of an image counts. Set it to 0 to "
            "train only on the parts that the masks select.",
            masked_count,
        )
    if not tokens_only:  # one call for all captions: a large text encoder takes minutes to load
        captions = sorted({""}.union(*(row.captions for row in snapshot.rows)))
        encode_captions(base, captions, store.home, device)
    train = encode(snapshot.train, config.horizontal_flip, masks=config.masked_weight is not None)
    if not train.rows:
        reasons = "; ".join(sorted(set(train.skipped.values()))[:3])
        raise TrainingError(f"None of the {len(snapshot.train)} training images can be used: {reasons}")
    held_out = encode(snapshot.held_out, mirror=False, masks=False)
    _report_skipped({**train.skipped, **held_out.skipped}, len(snapshot.rows), job.folder)
    prior = encode_prior(base, config, store.home, device, on_progress, tokens_only, sheet)
    return Inputs(train, held_out if held_out.rows else None, prior)


def _report_skipped(skipped: Mapping[str, str], image_count: int, folder: Path) -> None:
    """Report skipped images before training, in the log and in `skipped.json`."""
    if skipped:
        replace_file(folder / "skipped.json", f"{json.dumps(dict(skipped), indent=2, sort_keys=True)}\n".encode())
        first_reason = min(skipped.values())
        _logger.warning(
            "%d of %d images cannot be used and are skipped. The first: %s", len(skipped), image_count, first_reason
        )


def _build_run(
    job: TrainingJob,
    store: ImageStore,
    accelerator: Accelerator,
    record: dict[str, Any],
    inputs: Inputs,
    listener: Listener,
) -> Run:
    base, lora, config, device = job.base, job.lora, job.config, accelerator.device
    precision: Precision = record["precision"]
    denoiser = _load_denoiser(job, device, precision)
    loss = DenoisingLoss.of_base(base, config.min_snr_gamma or None, precision, device)
    groups = [TrainedGroup(adapter_parameters(denoiser), config.learning_rate)]
    if lora is not None and job.trains_text_encoders:
        text = TrainedText.of_base(base, lora, config.seed, device)
        groups.append(TrainedGroup(text.parameters, config.text_encoder_learning_rate, "text_encoder_learning_rate"))
        loss = replace(loss, text=text)
    encoded = [inputs.train] if inputs.prior is None else [inputs.train, inputs.prior]
    micro_batch_size = resolve_micro_batch_size(accelerator, denoiser, loss, encoded, config, record, job.folder)
    validation = None
    if inputs.held_out is not None:
        validation = FixedNoiseValidation(inputs.held_out, loss, config.seed, micro_batch_size, device)
    return Run(
        job=job,
        accelerator=accelerator,
        denoiser=denoiser,
        learner=Learner(groups, config),
        loss=loss,
        inputs=inputs,
        micro_batch_size=micro_batch_size,
        validation=validation,
        drawn_validation=drawn_validation_of(base, job.snapshot, store, config),
        # Only for adapters: a comparison measures the costs of regular fine-tuning, and samples would add to them.
        samples=samples_of(base, job.snapshot, config, job.folder) if lora is not None else None,
        listener=listener,
        takedown=TakedownWatch(store, job.snapshot),
    )


def _load_denoiser(job: TrainingJob, device: torch.device, precision: Precision) -> ModelMixin:
    """Load the base's denoiser: with an adapter on frozen weights, or with all weights trainable."""
    if job.lora is None:
        # In fp32, because a step of AdamW is often smaller than the last bit of bf16.
        denoiser = parts.load_denoiser(job.base, device).requires_grad_(True)
    else:
        frozen = parts.load_denoiser(job.base, device, precision, job.base.quantize)
        denoiser = attach_lora(frozen, job.lora, job.config.seed)
        cast_frozen_weights(denoiser, precision)
        if job.base.quantize is None:
            fuse_lora_in_forward(denoiser)
    if job.config.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    return denoiser
