"""From a snapshot to an adapter: the run in its folder, from whatever point an earlier process reached."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from sdlora.core.errors import TrainingError
from sdlora.core.progress import OnMetrics, OnProgress
from sdlora.core.refs import AdapterRef, BaseModelRef, Precision
from sdlora.data.snapshot import Snapshot, SnapshotRow
from sdlora.lora.attach import adapter_parameters, attach_lora
from sdlora.lora.config import ResolvedLora
from sdlora.lora.load import open_adapter
from sdlora.models import parts
from sdlora.models.files.sources import verify
from sdlora.models.precision import remembered_probe
from sdlora.processes.memory import freed_memory_kept
from sdlora.store import ImageStore
from sdlora.training.config import ResolvedTraining
from sdlora.training.identity import run_digest
from sdlora.training.inputs.encoded import EncodedRows, encode_captions, encode_rows
from sdlora.training.inputs.prior import PRIOR_SHEET, encode_prior
from sdlora.training.judging import choosing
from sdlora.training.judging.drawn_validation import drawn_validation_of
from sdlora.training.judging.samples import OnSamples, samples_of
from sdlora.training.judging.validation import FixedNoiseValidation
from sdlora.training.learning.frozen_weights import cast_frozen_weights
from sdlora.training.learning.learner import Learner, TrainedGroup
from sdlora.training.learning.loss import DenoisingLoss
from sdlora.training.learning.merged_weights import fuse_lora_in_forward
from sdlora.training.learning.preflight import settled_micro_batch_size
from sdlora.training.learning.trained_text import TrainedText
from sdlora.training.loop import Run
from sdlora.training.results import ADAPTER_FOLDER, write_adapters
from sdlora.training.run_folder import claim, exclusive, write_text
from sdlora.training.suitability import check_rows, check_settings

_logger = logging.getLogger(__name__)


def fine_tune(
    base: BaseModelRef,
    snapshot: Snapshot,
    store: ImageStore,
    lora: ResolvedLora,
    config: ResolvedTraining,
    folder: Path,
    *,
    name: str = "adapter",
    on_metrics: OnMetrics | None = None,
    on_progress: OnProgress | None = None,
    on_samples: OnSamples | None = None,
) -> AdapterRef:
    """Train an adapter on the snapshot's training rows and write it to `folder/adapter`.

    With held-out images the adapter that measures best on them is the one written (`training.keep`); the second best
    goes to `folder/runner-up`, and `folder/choice.json` tells by how much.

    Equal inputs give equal bytes on one machine with the same number of threads, however often the run was killed
    and started again. A finished adapter is returned at once.

    Args:
        base: the model to adapt; its digest is checked.
        snapshot: what to train and to validate on.
        store: holds the images' bytes; its `home` holds the caches.
        lora: the adapter's size and place.
        config: how long and how fast.
        folder: the run's own folder, `runs/<run digest>`; an unfinished run found there is continued.
        name: name of the kohya file, without suffix.
        on_metrics: called as (step, values) with loss, gradient_norm, learning_rate, images_per_second, or
            validation_loss (with `validation_images` also validation_kid and its interval); where they apply also with
            prior_loss, text_encoder_learning_rate and loss_scale. A continued run repeats its earlier points first.
        on_progress: called with "encode images" and "train"; with `prior_weight` also with "draw prior images".
        on_samples: called as (step, path) with every picture file drawn while training, see `sample_every_steps`, and
            with one of the prior images.

    Raises:
        TrainingError: no training rows, a folder in use or of another run, or a loss that is not finite.
        ConfigError: a library is missing, or the adapter's method cannot be trained on a quantised base.
        TargetModuleError: the adapter does not fit the base model.
        WeightsError: the base model or a finished adapter is damaged.
        StorageError: the disk is full; the last good checkpoint is kept.
        KeyboardInterrupt: after SIGINT or SIGTERM, when the work is saved.
    """
    digest = run_digest(base.digest, snapshot.digest, lora, config, base.quantize)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    check_rows(snapshot, config)
    with exclusive(folder) if accelerator.is_main_process else nullcontext():
        finished = _finished(folder, digest)
        if finished is not None:
            return finished
        check_settings(base, lora, config, accelerator.num_processes)
        verify(base, store.home)
        # It writes, the others read. Encoding, like a step, frees and takes the same memory again and again.
        with accelerator.main_process_first(), freed_memory_kept():
            record = claim(
                folder,
                record_of(
                    base, snapshot, lora, config, digest, accelerator.device, accelerator.num_processes, store.home
                ),
            )
            # The order of sums depends on them: a continued run keeps those that it was begun with.
            torch.set_num_threads(record["threads"])
            encoded, held_out = encode_snapshot(
                base,
                snapshot,
                store,
                config,
                folder,
                accelerator.device,
                on_progress,
                tokens_only=lora.text_encoder_rank is not None,
            )
            sheet = folder / PRIOR_SHEET if accelerator.is_main_process else None
            prior = encode_prior(
                base, config, store.home, accelerator.device, on_progress, lora.text_encoder_rank is not None, sheet
            )
            if prior and sheet and on_samples:
                on_samples(0, sheet)
        run = prepare_run(accelerator, base, lora, config, record, encoded, held_out, folder, prior)
        run.on_metrics, run.on_progress, run.on_samples = on_metrics, on_progress, on_samples
        run.samples = samples_of(base, snapshot, config, folder)
        run.drawn_validation = drawn_validation_of(base, snapshot, store, config)
        run.train()
        if accelerator.is_main_process:
            write_adapters(run, base, snapshot, lora, name, digest)
            for leftover in ("checkpoints", choosing.FOLDER):
                shutil.rmtree(folder / leftover, ignore_errors=True)
        accelerator.wait_for_everyone()
        return open_adapter(folder / ADAPTER_FOLDER)


def _finished(folder: Path, digest: str) -> AdapterRef | None:
    if not (folder / ADAPTER_FOLDER).is_dir():
        return None
    adapter = open_adapter(folder / ADAPTER_FOLDER)
    if adapter.run_digest != digest:
        raise TrainingError(
            f"{folder} holds the finished adapter of the run {adapter.run_digest[:12]}, not of {digest[:12]}. "
            "Use another folder."
        )
    return adapter


def record_of(
    base: BaseModelRef,
    snapshot: Snapshot,
    lora: ResolvedLora | None,
    config: ResolvedTraining,
    digest: str,
    device: torch.device,
    num_processes: int,
    home: Path,
) -> dict[str, Any]:
    """What a run is started with."""
    probe = remembered_probe(device.type, home)
    return {
        "run_digest": digest,
        "base_digest": base.digest,
        "quantize": base.quantize,
        "snapshot_digest": snapshot.digest,
        "lora": lora and lora.model_dump(mode="json"),
        "training": config.model_dump(mode="json"),
        "precision": config.precision,
        "bf16_speedup": probe.speedup,
        "threads": torch.get_num_threads(),
        "num_processes": num_processes,
    }


def encode_snapshot(
    base: BaseModelRef,
    snapshot: Snapshot,
    store: ImageStore,
    config: ResolvedTraining,
    folder: Path,
    device: torch.device,
    on_progress: OnProgress | None,
    tokens_only: bool = False,
) -> tuple[EncodedRows, EncodedRows | None]:
    """The tensors of the training rows, and of the held-out rows if there are any."""

    def encode(rows: Sequence[SnapshotRow], mirror: bool, masks: bool) -> EncodedRows:
        return encode_rows(
            base,
            rows,
            store,
            config.resolutions,
            aspect_buckets=config.aspect_buckets,
            mirror=mirror,
            masks=masks,
            tokens_only=tokens_only,
            device=device,
            on_progress=on_progress,
        )

    masked = sum(bool(row.mask) for row in snapshot.train)
    if masked and config.masked_weight is None:
        _logger.warning(
            "%d images have masks, but without training.masked_weight all of each image counts. Set it to 0 to learn "
            "from what the masks show only.",
            masked,
        )
    if not tokens_only:  # all captions at once: a large text encoder takes minutes to load
        captions = sorted({""}.union(*(row.captions for row in snapshot.rows)))
        encode_captions(base, captions, store.home, device)
    encoded = encode(snapshot.train, config.horizontal_flip, masks=config.masked_weight is not None)
    if not encoded.rows:
        reasons = "; ".join(sorted(set(encoded.skipped.values()))[:3])
        raise TrainingError(f"None of the {len(snapshot.train)} training images can be used: {reasons}")
    held_out = encode(snapshot.held_out, mirror=False, masks=False)
    _report_skipped({**encoded.skipped, **held_out.skipped}, len(snapshot.rows), folder)
    return encoded, held_out if held_out.rows else None


def _report_skipped(skipped: Mapping[str, str], count: int, folder: Path) -> None:
    """Say before hours of training which images it goes without, in the log and in the run folder."""
    if skipped:
        write_text(folder / "skipped.json", json.dumps(dict(skipped), indent=2, sort_keys=True) + "\n")
        first = next(iter(sorted(skipped.values())))
        _logger.warning("%d of %d images cannot be used and are skipped. The first: %s", len(skipped), count, first)


def prepare_run(
    accelerator: Accelerator,
    base: BaseModelRef,
    lora: ResolvedLora | None,
    config: ResolvedTraining,
    record: dict[str, Any],
    encoded: EncodedRows,
    held_out: EncodedRows | None,
    folder: Path,
    prior: EncodedRows | None = None,
) -> Run:
    """A run over an adapter of the frozen base; without `lora` over all weights of the denoiser."""
    precision: Precision = record["precision"]
    if lora is None:
        # In fp32: a step of AdamW is often smaller than the last bit of bf16.
        denoiser = parts.load_denoiser(base, accelerator.device).requires_grad_(True)
    else:
        frozen = parts.load_denoiser(base, accelerator.device, precision, base.quantize)
        denoiser = attach_lora(frozen, lora, config.seed)
        cast_frozen_weights(denoiser, precision)
        if base.quantize is None:
            fuse_lora_in_forward(denoiser)
    if config.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    loss = DenoisingLoss.of_base(base, config.min_snr_gamma or None, precision, accelerator.device)
    groups = [TrainedGroup(adapter_parameters(denoiser), config.learning_rate)]
    if lora is not None and lora.text_encoder_rank is not None:
        text = TrainedText.of_base(base, lora, config.seed, accelerator.device)
        groups.append(TrainedGroup(text.parameters, config.text_encoder_learning_rate, "text_encoder_learning_rate"))
        loss = replace(loss, text=text)
    kinds = [encoded] if prior is None else [encoded, prior]
    micro_batch_size = settled_micro_batch_size(accelerator, denoiser, loss, kinds, config, record, folder)
    validation = None
    if held_out is not None:
        validation = FixedNoiseValidation(held_out, loss, config.seed, micro_batch_size, accelerator.device)
    return Run(
        accelerator=accelerator,
        denoiser=denoiser,
        learner=Learner(groups, config),
        loss=loss,
        encoded=encoded,
        validation=validation,
        config=config,
        folder=folder,
        micro_batch_size=micro_batch_size,
        dropout=lora.dropout if lora else 0.0,
        prior=prior,
    )
