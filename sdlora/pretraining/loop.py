"""Optimiser loop of all pretraining stages: schedule, precision, averaging, checkpoints, progress."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sdlora.core.checkpoints import latest_checkpoint, load_optimizer_tensors, optimizer_tensors, save_checkpoint
from sdlora.core.errors import TrainingError
from sdlora.core.progress import OnMetrics
from sdlora.pretraining.config import StageConfig

LossFunction = Callable[[int], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class Stage:
    """Processes, checkpoints and reports of one stage.

    Attributes:
        accelerator: runs the backward pass and connects the processes.
        folder: folder of the checkpoints.
        on_metrics: called every 25 steps in the main process.
    """

    accelerator: Accelerator
    folder: Path
    on_metrics: OnMetrics | None = None


def make_accelerator() -> Accelerator:
    """Create an accelerator for one process or many (`accelerate launch`), on CPU or GPU, from the environment."""
    return Accelerator(cpu=not torch.cuda.is_available())


def autocast(device: torch.device) -> torch.autocast:
    """Return an autocast context: bf16 arithmetic on fp32 weights.

    Do not combine it with torch.compile: on a CPU this gives wrong gradients without a warning (torch 2.13, measured:
    cosine 0.41 to the fp32 gradient).
    """
    return torch.autocast(device.type, dtype=torch.bfloat16)


def train_stage(
    stage: Stage,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of_step: LossFunction,
    config: StageConfig,
    *,
    ema_decay: float = 0.999,
    flat_fraction: float = 0.0,
) -> nn.Module:
    """Train one stage to its end, from its last checkpoint if there is one.

    Args:
        stage: processes, checkpoints and reports.
        model: unwrapped module with every trained parameter; the loss may use a wrapped view of the module.
        optimizer: optimiser with the peak learning rates.
        loss_of_step: step -> (loss to differentiate, numbers to report); draws its batch from (seed, step).
        config: length and checkpoints of the stage.
        ema_decay: largest decay of the moving average.
        flat_fraction: share of the steps at the peak learning rate.
    Returns:
        A copy of the model with averaged weights (EMA), in evaluation mode.
    Raises:
        TrainingError: the loss is not finite.
    """
    accelerator, folder, on_metrics = stage.accelerator, stage.folder, stage.on_metrics
    average = copy.deepcopy(model).eval().requires_grad_(False)
    peak_rates = [group["lr"] for group in optimizer.param_groups]
    start = _restore(folder, model, average, optimizer)
    began = time.monotonic()
    for step in range(start, config.steps):
        for group, rate in zip(optimizer.param_groups, peak_rates, strict=True):
            group["lr"] = rate * lr_schedule(step, config.steps, config.warmup_steps, flat_fraction)
        loss, report = loss_of_step(step)
        if not math.isfinite(loss.item()):
            raise TrainingError(f"pretraining: the loss is {loss.item()} at step {step}; lower learning_rate.")
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        update_average(average, model, min(ema_decay, (step + 1) / (step + 10)))
        done = step + 1
        if on_metrics and accelerator.is_main_process and (done % 25 == 0 or done == config.steps):
            seconds_left = (time.monotonic() - began) / (done - start) * (config.steps - done)
            on_metrics(done, {**report, "seconds_left": seconds_left})
        if done % config.checkpoint_every_steps == 0 or done == config.steps:
            if accelerator.is_main_process:
                _save(folder, done, model, average, optimizer)
            accelerator.wait_for_everyone()
    return average


def lr_schedule(step: int, steps: int, warmup_steps: int, flat_fraction: float = 0.0) -> float:
    """Compute the share of the peak learning rate at `step`: linear warm-up, flat, cosine to 2 %."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    flat_until = max(warmup_steps, flat_fraction * steps)
    if step < flat_until:
        return 1.0
    progress = (step - flat_until) / max(1, steps - flat_until)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Update the exponential moving average of every floating-point parameter and buffer, in place."""
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value.detach(), 1 - decay)


def _save(folder: Path, step: int, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    save_checkpoint(folder, step, tensors | optimizer_tensors(optimizer), {})


def _restore(folder: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        return 0
    for prefix, module in (("model.", model), ("average.", average)):
        state = {name.removeprefix(prefix): t for name, t in checkpoint.tensors.items() if name.startswith(prefix)}
        module.load_state_dict(state)
    load_optimizer_tensors(optimizer, checkpoint.tensors)
    return checkpoint.step
