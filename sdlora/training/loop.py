"""The loop: draw, predict, differentiate, update; report, validate and save in between."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from torch import Tensor

from sdlora.checkpoints import latest_checkpoint, save_checkpoint
from sdlora.diffusion.seeds import step_generator
from sdlora.errors import StorageError, TrainingError
from sdlora.progress import OnMetrics, OnProgress
from sdlora.training.batches import draw_step
from sdlora.training.choosing import Chooser, Measurement
from sdlora.training.config import TrainingConfig
from sdlora.training.encoded import EncodedRows
from sdlora.training.gradients import sum_over_processes
from sdlora.training.interrupts import DeferredSignals
from sdlora.training.learner import Learner
from sdlora.training.loss import DenoisingLoss
from sdlora.training.order import EpochOrder
from sdlora.training.run_folder import Curve
from sdlora.training.samples import OnSamples, Samples
from sdlora.training.validation import FixedNoiseValidation


@dataclass
class Run:
    """One run of the loop over fixed inputs; `train` takes it to its last step."""

    accelerator: Accelerator
    unet: UNet2DConditionModel
    learner: Learner
    loss: DenoisingLoss
    encoded: EncodedRows
    validation: FixedNoiseValidation | None
    config: TrainingConfig
    folder: Path
    micro_batch_size: int | None = None
    dropout: float = 0.0
    samples: Samples | None = None
    on_metrics: OnMetrics | None = None
    on_progress: OnProgress | None = None
    on_samples: OnSamples | None = None
    chooser: Chooser = field(init=False)
    order: EpochOrder = field(init=False)
    done: int = field(init=False, default=0)
    # (2,) loss and gradient norm of each step since the last report, read only then: a GPU never waits for it.
    _recent: list[Tensor] = field(default_factory=list)
    _curve: Curve = field(init=False)
    _reported_at: float = field(init=False)
    _saved_at: float = field(init=False)
    _stopped: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.chooser = Chooser(self.folder, self.config)
        self.order = EpochOrder(self.encoded.shapes(), self.config.batch_size, self.config.seed)

    def train(self) -> None:
        """Run all steps that are left, from the last whole checkpoint if there is one.

        Ends before the last step if the measurements say so (`early_stop_patience`); `done` tells how many were run.

        Raises:
            TrainingError: a loss or gradient is not finite; nothing is saved from then on.
            StorageError: a checkpoint or the curve cannot be written; the last good checkpoint is kept.
            KeyboardInterrupt: SIGINT or SIGTERM, after a checkpoint (the signal's own handler comes first).
        """
        self.done = self._restore()
        self.unet.train()
        self._reported_at = self._saved_at = time.monotonic()
        with DeferredSignals() as signals:
            if self.done == 0:
                self._validate()
                self._draw_samples()
            while self.done < self.config.steps and not self._stopped:
                self._step(self.done)
                self.done += 1
                self._after_step()
                if self._any_process(signals.received is not None):
                    self._save()
                    signals.deliver()
        self.unet.eval()

    def _step(self, step: int) -> None:
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        objective, device = self.loss.objective, self.accelerator.device
        if self.dropout:  # the only thing in the network that draws from the global generator
            torch.manual_seed(step_generator(self.config.seed, step, f"dropout-{rank}").initial_seed())
        whole = torch.zeros((), device=device)
        for batch in draw_step(
            self.encoded, self.order, self.config, step, objective, rank, processes, self.micro_batch_size
        ):
            loss = self.loss.weighted(self.unet, batch.to(device))
            self.accelerator.backward(loss)
            whole += loss.detach()
        sum_over_processes(self.accelerator, self.learner.tensors)
        norm = self.learner.update(step)
        self._recent.append(torch.stack((whole, norm)))

    def _after_step(self) -> None:
        """Report, validate and save, each when it is due."""
        config = self.config
        last = self.done == config.steps
        if last or self.done % config.log_every_steps == 0:
            self._report()
        if last or self.done % config.validation_every_steps == 0:
            self._validate()
        if last or self._stopped or (config.sample_every_steps and self.done % config.sample_every_steps == 0):
            self._draw_samples()
        overdue = time.monotonic() - self._saved_at >= config.checkpoint_every_seconds
        asked = config.checkpoint_every_steps is not None and self.done % config.checkpoint_every_steps == 0
        if last or overdue or asked or self._stopped:
            self._save()

    def _report(self) -> None:
        self._require_finite()
        mean = torch.stack(self._recent).mean(0)
        # Every process holds its own images' share of the loss; the gradient norm is already the whole step's.
        loss, norm = self.accelerator.reduce(mean[0], reduction="sum").item(), mean[1].item()
        now = time.monotonic()
        rate = len(self._recent) * self.config.batch_size / (now - self._reported_at)
        self._reported_at = now
        self._recent.clear()
        self._add(
            {
                "loss": loss,
                "gradient_norm": norm,
                "learning_rate": self.learner.rate(self.done - 1),
                "images_per_second": rate,
            },
        )
        if self.on_progress and self.accelerator.is_main_process:
            self.on_progress("train", self.done, self.config.steps)

    def _validate(self) -> None:
        """Measure the adapter on the held-out images; all processes then agree on whether to go on."""
        if self.validation is None:
            return
        if self.accelerator.is_main_process:
            began = time.monotonic()
            self._require_finite()
            with self.learner.averaged():
                errors = self.validation.measure(self.unet)
                self._add({"validation_loss": errors.mean().item()})
                self.chooser.consider(Measurement(self.done, errors), self.learner.parameters)
            self._reported_at += time.monotonic() - began  # images per second is training's own speed
        if self.config.early_stop_patience is not None:
            self._stopped = self._any_process(self.chooser.should_stop)

    def _any_process(self, mine: bool) -> bool:
        """Whether it holds for any process: all must end after the same step, or one would wait for ever."""
        if self.accelerator.num_processes == 1:
            return mine
        votes = torch.tensor(float(mine), device=self.accelerator.device)
        return bool(self.accelerator.reduce(votes) > 0)

    def _draw_samples(self) -> None:
        if self.samples is None or not self.accelerator.is_main_process:
            return
        began = time.monotonic()
        with self.learner.averaged():
            for path in self.samples.draw(self.done, self.unet, self.loss.text.encoders if self.loss.text else None):
                if self.on_samples:
                    self.on_samples(self.done, path)
        self._reported_at += time.monotonic() - began

    def _add(self, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            self._curve.add(self.done, values)
            if self.on_metrics:
                self.on_metrics(self.done, values)

    def _save(self) -> None:
        if not self.accelerator.is_main_process:
            return
        self._require_finite()
        began = time.monotonic()
        tensors = self.learner.state()
        if self._recent:
            tensors["recent"] = torch.stack(self._recent)
        values = {
            "curve": self._curve.points,
            "optimizer": self.learner.state_values(),
            "chooser": self.chooser.state(),
        }
        try:
            save_checkpoint(self.folder / "checkpoints", self.done, tensors, values)
        except (OSError, SafetensorError) as error:
            raise StorageError(
                f"Cannot write the checkpoint of step {self.done} to {self.folder / 'checkpoints'}: {error}. "
                "Free some space and run again; training continues from the last good checkpoint."
            ) from error
        self.chooser.checkpoint_written()
        self._saved_at = time.monotonic()
        self._reported_at += self._saved_at - began

    def _restore(self) -> int:
        checkpoint = latest_checkpoint(self.folder / "checkpoints")
        points = checkpoint.values["curve"] if checkpoint else []
        if self.accelerator.is_main_process:
            self._curve = Curve(self.folder, points)
            if self.on_metrics:
                for point in points:  # the listener may be new: it gets the whole curve
                    values = {name: value for name, value in point.items() if name != "step"}
                    self.on_metrics(int(point["step"]), values)
        if checkpoint is None:
            return 0
        self.learner.restore(checkpoint)
        self.chooser.restore(checkpoint.values["chooser"])
        self._stopped = self.chooser.should_stop
        self._recent = list(checkpoint.tensors["recent"]) if "recent" in checkpoint.tensors else []
        return checkpoint.step

    def _require_finite(self) -> None:
        """Nothing leaves the loop, to the curve or to the disk, before this has passed."""
        values = torch.stack(self._recent) if self._recent else torch.zeros(0, 2)
        bad = (~values.isfinite()).any(1).nonzero().flatten().tolist()
        if not bad and self.learner.all_finite():
            return
        step = self.done - len(values) + bad[0] if bad else self.done - 1
        loss, norm = values[bad[0]].tolist() if bad else (float("nan"), float("nan"))
        drawn = self.order.images_of(step)
        images = ", ".join(sorted({self.encoded.rows[one.index].sha256[:12] for one in drawn}))
        raise TrainingError(
            f"training: the loss is {loss} and the gradient norm {norm} at step {step}, on the images {images}. "
            f"Nothing after the last good checkpoint was saved. Lower training.learning_rate "
            f"(now {self.config.learning_rate:g}) or look at these images."
        )
