"""Training loop: draw a batch, differentiate, update; report, validate, sample and save in between."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from diffusers import ModelMixin
from safetensors import SafetensorError
from torch import Tensor, nn

from sdlora.core.checkpoints import latest_checkpoint, save_checkpoint
from sdlora.core.errors import StorageError, TrainingError
from sdlora.core.progress import Listener
from sdlora.data.takedown import TakedownWatch
from sdlora.diffusion.seeds import step_generator
from sdlora.processes.memory import return_freed_memory
from sdlora.processes.signals import DeferredSignals, Interrupted
from sdlora.training.config import ResolvedTraining
from sdlora.training.inputs.batches import BatchGroup, batch_groups, draw_step
from sdlora.training.inputs.encoded import Inputs
from sdlora.training.job import TrainingJob
from sdlora.training.judging.choosing import Chooser
from sdlora.training.judging.drawn_validation import DrawnValidation
from sdlora.training.judging.samples import Samples
from sdlora.training.judging.validation import FixedNoiseValidation
from sdlora.training.judging.validation_result import ValidationResult
from sdlora.training.learning.gradients import sum_over_processes
from sdlora.training.learning.learner import Learner
from sdlora.training.learning.loss import DenoisingLoss
from sdlora.training.run_folder import CurveWriter

Due = Literal["validate", "draw", "save"]


@dataclass
class Run:
    """Run of the training loop over fixed inputs; `train` continues to the last step."""

    job: TrainingJob
    accelerator: Accelerator
    denoiser: ModelMixin
    learner: Learner
    loss: DenoisingLoss
    inputs: Inputs
    micro_batch_size: int
    validation: FixedNoiseValidation | None
    drawn_validation: DrawnValidation | None
    samples: Samples | None
    listener: Listener
    takedown: TakedownWatch
    chooser: Chooser = field(init=False)
    groups: list[BatchGroup] = field(init=False)
    done: int = field(init=False, default=0)
    # Per step since the last report: loss, gradient norm, and the loss of the prior images if there are any. Read only
    # at a report, so that a GPU does not wait at every step.
    _recent: list[Tensor] = field(default_factory=list)
    _curve: CurveWriter = field(init=False)
    # Work due before the next step; a checkpoint holds the part that a signal left undone.
    _due: list[Due] = field(init=False, default_factory=list)
    _signals: DeferredSignals = field(init=False)
    _reported_at: float = field(init=False)
    _saved_at: float = field(init=False)
    _stopped: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.chooser = Chooser(self.folder, self.config)
        self.groups = batch_groups(self.inputs.train, self.inputs.prior, self.config)

    @property
    def config(self) -> ResolvedTraining:
        return self.job.config

    @property
    def folder(self) -> Path:
        return self.job.folder

    def train(self) -> None:
        """Run the remaining steps, from the last intact checkpoint if there is one.

        `early_stop_patience` may end the run before the last step; `done` holds the number of steps.

        Raises:
            TrainingError: a loss or gradient is not finite; nothing is saved afterwards.
            StorageError: a checkpoint or the curve cannot be written; the last good checkpoint is kept.
            TakedownError: an image of the snapshot was purged.
            KeyboardInterrupt: SIGINT or SIGTERM, after a checkpoint (the signal's own handler runs first).
        """
        self.done = self._restore()
        self.denoiser.train()
        self._reported_at = self._saved_at = time.monotonic()
        return_freed_memory()  # the encoders' memory
        # Dropout draws from the global generators, which are the caller's.
        devices = list(range(torch.cuda.device_count()))
        with torch.random.fork_rng(devices), DeferredSignals() as self._signals:
            while True:
                self._finish_step()
                if self._any_process(self._signals.received is not None or self.takedown.found()):
                    if self.takedown.found(at_once=True):
                        self.takedown.refuse()
                    self._save()
                    # A process that leaves earlier makes the launcher stop the other processes.
                    self.accelerator.wait_for_everyone()
                    self._signals.deliver()
                if self.done == self.config.steps or self._stopped:
                    break
                self._take_step()
        self.denoiser.eval()
        return_freed_memory()

    def _take_step(self) -> None:
        try:
            self._step(self.done)
        except Interrupted:
            return  # no parameter has changed: a continued run repeats the step
        self.done += 1
        if self.done == self.config.steps or self.done % self.config.log_every_steps == 0:
            self._report()
        self._due = self._due_after_step()

    def _step(self, step: int) -> None:
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        objective, device = self.loss.objective, self.accelerator.device
        # Only dropout draws from the global generator.
        if self.job.lora is not None and self.job.lora.dropout:
            torch.manual_seed(step_generator(self.config.seed, step, f"dropout-{rank}").initial_seed())
        group_losses = torch.zeros(len(self.groups), device=device)
        for batch in draw_step(self.groups, self.config, step, objective, rank, processes, self.micro_batch_size):
            if processes == 1:  # several processes agree after the step
                self._check()
            losses = self.loss.by_group(self.denoiser, batch.to(device), len(self.groups))
            self.accelerator.backward(self.learner.scaled(losses.sum()))
            group_losses += losses.detach()
        sum_over_processes(self.accelerator, self.learner.tensors)
        norm = self.learner.update(step)
        self._recent.append(torch.cat((group_losses[:1], norm[None], group_losses[1:])))

    def _due_after_step(self) -> list[Due]:
        config = self.config
        last = self.done == config.steps
        due: list[Due] = ["validate"] if last or self.done % config.validation_every_steps == 0 else []
        if last or (config.sample_every_steps and self.done % config.sample_every_steps == 0):
            due.append("draw")
        return [*due, "save"]

    def _finish_step(self) -> None:
        """Do the work that is due; a signal interrupts it and leaves the unfinished part due for a continued run."""
        try:
            while self._due:
                match self._due[0]:
                    case "validate":
                        self._validate()
                        if self._stopped and "draw" not in self._due:
                            self._due.insert(1, "draw")
                    case "draw":
                        self._draw_samples()
                    case "save" if self._must_save():
                        self._save()
                self._due = self._due[1:]
        except Interrupted:
            pass

    def _must_save(self) -> bool:
        config = self.config
        overdue = time.monotonic() - self._saved_at >= config.checkpoint_every_seconds
        asked = config.checkpoint_every_steps is not None and self.done % config.checkpoint_every_steps == 0
        return overdue or asked or self._stopped or self.done == config.steps

    def _report(self) -> None:
        self._require_finite()
        mean = torch.stack(self._recent).mean(0)
        # Each process holds the loss of its own images; the gradient norm already covers the whole step.
        loss, *prior_losses = self.accelerator.reduce(torch.cat((mean[:1], mean[2:])), reduction="sum").tolist()
        now = time.monotonic()
        rate = len(self._recent) * self.config.batch_size / (now - self._reported_at)
        self._reported_at = now
        self._recent.clear()
        self._add(
            {
                "loss": loss,
                **({"prior_loss": prior_losses[0] / self.config.prior_weight} if self.config.prior_weight else {}),
                "gradient_norm": mean[1].item(),
                **self.learner.reported(self.done - 1),
                "images_per_second": rate,
            },
        )
        if self.accelerator.is_main_process:
            self.listener.on_progress("train", self.done, self.config.steps)

    def _validate(self) -> None:
        """Validate on the held-out images; all processes then agree whether to continue."""
        if self.validation is None:
            return
        interrupted: Interrupted | None = None
        if self.accelerator.is_main_process:
            began = time.monotonic()
            self._require_finite()
            try:
                with self.learner.averaged():
                    result = self._measure(self.validation)
                    self._add(result.as_metrics())
                    self.chooser.consider(result, self.learner.parameters)
            except Interrupted as signal:
                interrupted = signal
            self._reported_at += time.monotonic() - began  # images per second counts training only
        if self.config.early_stop_patience is not None:  # also if interrupted: the other processes wait for this vote
            self._stopped = self._any_process(self.chooser.should_stop)
        if interrupted:
            raise interrupted

    def _measure(self, validation: FixedNoiseValidation) -> ValidationResult:
        errors, kid = validation.measure(self.denoiser, self._check), None
        if self.drawn_validation is not None:
            kid = self.drawn_validation.measure(self.denoiser, self._text_encoders, self._check)
        return ValidationResult(self.done, errors, kid=kid)

    @property
    def _text_encoders(self) -> Mapping[str, nn.Module] | None:
        """Trained text encoders by folder; None if they are not trained."""
        return self.loss.text.encoders if self.loss.text else None

    def _check(self) -> None:
        """Stop between two passes of the network if a signal arrived or an image was purged.

        Raises:
            Interrupted: the loop then ends the run.
        """
        self._signals.check()
        if self.takedown.found():
            raise Interrupted

    def _any_process(self, value: bool) -> bool:
        """Reduce a flag over all processes: all must end after the same step, or one would wait forever."""
        if self.accelerator.num_processes == 1:
            return value
        votes = torch.tensor(float(value), device=self.accelerator.device)
        return bool(self.accelerator.reduce(votes) > 0)

    def _draw_samples(self) -> None:
        if self.samples is None or not self.accelerator.is_main_process:
            return
        began = time.monotonic()
        with self.learner.averaged():
            for path in self.samples.draw(self.done, self.denoiser, self._text_encoders, self._check):
                self.listener.on_samples(self.done, path)
        self._reported_at += time.monotonic() - began

    def _add(self, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            self._curve.add(self.done, values)
            self.listener.on_metrics(self.done, values)

    def _save(self) -> None:
        if not self.accelerator.is_main_process or self.takedown.found(at_once=True):
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
            "due": [work for work in self._due if work != "save"],
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
            self._curve = CurveWriter(self.folder, points)
            for point in points:  # a new listener gets the whole curve
                values = {name: value for name, value in point.items() if name != "step"}
                self.listener.on_metrics(int(point["step"]), values)
        if checkpoint is None:
            self._due = ["validate", "draw"]
            return 0
        self._due = list(checkpoint.values["due"])
        self.learner.restore(checkpoint)
        self.chooser.restore(checkpoint.values["chooser"])
        self._stopped = self.chooser.should_stop
        self._recent = list(checkpoint.tensors["recent"]) if "recent" in checkpoint.tensors else []
        return checkpoint.step

    def _require_finite(self) -> None:
        """Check for finite numbers, before every report, validation and checkpoint.

        Raises:
            TrainingError: a loss, gradient or parameter is not finite, or fp16 overflows in every step.
        """
        scale = self.learner.loss_scale
        if scale is not None and scale < 1:
            raise TrainingError(
                f"training.precision: fp16 overflows step after step, even with the loss scaled by only {scale:g}. "
                "Nothing after the last good checkpoint was saved. Set it to bf16 or fp32."
            )
        values = torch.stack(self._recent) if self._recent else torch.zeros(0, 2)
        bad = (~values.isfinite()).any(1).nonzero().flatten().tolist()
        if not bad and self.learner.all_finite():
            return
        step = self.done - len(values) + bad[0] if bad else self.done - 1
        loss, norm = values[bad[0], :2].tolist() if bad else (float("nan"), float("nan"))
        step_images = self.groups[0].order.images_of(step)
        images = ", ".join(sorted({self.inputs.train.rows[image.index].sha256[:12] for image in step_images}))
        raise TrainingError(
            f"training: the loss is {loss} and the gradient norm {norm} at step {step}, on the images {images}. "
            f"Nothing after the last good checkpoint was saved. Lower training.learning_rate "
            f"(now {self.config.learning_rate:g}) or look at these images."
        )
