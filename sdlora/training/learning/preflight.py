"""Preflight: the largest micro-batch that fits into memory, found before training on the largest shape of the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.func import functional_call

from sdlora.core.errors import TrainingError
from sdlora.training.config import ResolvedTraining
from sdlora.training.inputs.batches import Batch, stack_conditioning
from sdlora.training.inputs.encoded import EncodedRows
from sdlora.training.learning.loss import DenoisingLoss
from sdlora.training.run_folder import write_record

_logger = logging.getLogger(__name__)
# The largest layer needs workspace on top of the tensors kept for the backward pass: at most half as much again in the
# measured U-Nets. A fifth of the memory stays free for everything else.
_WORK_FACTOR, _USABLE_SHARE = 1.5, 0.8


def resolve_micro_batch_size(
    accelerator: Accelerator,
    denoiser: nn.Module,
    loss: DenoisingLoss,
    inputs: Sequence[EncodedRows],
    config: ResolvedTraining,
    record: dict[str, Any],
    folder: Path,
) -> int:
    """Resolve the micro-batch size: the setting, or the preflight's result, made once per run.

    The run's record keeps the result, so that a continued run gives the same bits.

    Raises:
        TrainingError: not even one image fits.
        StorageError: the record cannot be written.
    """
    if config.micro_batch_size is not None:
        return config.micro_batch_size
    if "micro_batch_size" not in record:
        share = -(-config.images_per_step // accelerator.num_processes)
        denoiser.train()  # as in the loop: evaluation mode keeps other tensors for the backward pass
        size = max_micro_batch_size(denoiser, loss, inputs, share, accelerator.device)
        smallest = accelerator.gather(torch.tensor([size], device=accelerator.device)).min()
        record["micro_batch_size"] = int(smallest)
        if accelerator.is_main_process:
            write_record(folder, record)
    return int(record["micro_batch_size"])


def max_micro_batch_size(
    denoiser: nn.Module, loss: DenoisingLoss, inputs: Sequence[EncodedRows], share: int, device: torch.device
) -> int:
    """Find the largest micro-batch that fits, up to `share`, this process's images of a step.

    A GPU tries real steps. On a CPU the system would kill a process that tries too much. There, the memory that images
    keep for the backward pass is compared with the free memory.

    Raises:
        TrainingError: not even one image fits.
    """
    example = _largest_image(inputs)
    if device.type == "cuda":
        max_images = _by_trying(denoiser, loss, example, share, device)
    else:
        max_images = _by_measuring(denoiser, loss, example, share)
    passes = -(-share // max_images)
    micro_batch_size = -(-share // passes)  # as even as possible
    if passes > 1:
        _logger.warning(
            "training: %d images do not fit into memory at once; %d at a time, %d passes per step. The batch stays %d.",
            share,
            micro_batch_size,
            passes,
            share,
        )
    return micro_batch_size


def _largest_image(inputs: Sequence[EncodedRows]) -> Batch:
    """Return a batch of one image, the largest of all inputs, without caption."""
    encoded, number, row = max(
        (
            (encoded, number, row)
            for encoded in inputs
            for number in range(len(encoded.resolutions))
            for row in encoded.rows
        ),
        key=lambda item: item[0].resolutions[item[1]].latents[item[2].sha256].numel(),
    )
    latents = encoded.resolutions[number].latents[row.sha256][None]
    conditioning = stack_conditioning([encoded.conditioning(row, number, "")])
    return Batch(latents, torch.zeros_like(latents), torch.zeros(1, dtype=torch.int64), conditioning)


def _repeated(example: Batch, count: int) -> Batch:
    def repeat(tensor: Tensor) -> Tensor:
        return tensor.expand(count, *tensor.shape[1:]).clone()

    conditioning = {name: repeat(tensor) for name, tensor in example.conditioning.items()}
    return Batch(repeat(example.latents), repeat(example.noise), repeat(example.timesteps), conditioning)


def _by_trying(denoiser: nn.Module, loss: DenoisingLoss, example: Batch, share: int, device: torch.device) -> int:
    size = share
    while True:
        try:
            loss.weighted(denoiser, _repeated(example, size).to(device)).backward()
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise _does_not_fit(example, "this device has") from error
            size = -(-size // 2)
        else:
            return size
        finally:
            for network in _networks(denoiser, loss):
                network.zero_grad(set_to_none=True)
            if device.type == "cuda":
                torch.cuda.empty_cache()


def _by_measuring(denoiser: nn.Module, loss: DenoisingLoss, example: Batch, share: int) -> int:
    free_bytes = _USABLE_SHARE * psutil.virtual_memory().available
    if _WORK_FACTOR * _kept_bytes_by_shape(denoiser, loss, _repeated(example, share)) < free_bytes:
        return share
    bytes_of_one, bytes_of_two = (_kept_bytes(denoiser, loss, _repeated(example, count)) for count in (1, 2))
    bytes_per_image = max(1.0, _WORK_FACTOR * (bytes_of_two - bytes_of_one))
    # Does not grow with the batch: merged weights, for example.
    fixed_bytes = _WORK_FACTOR * bytes_of_one - bytes_per_image
    needed_bytes = fixed_bytes + bytes_per_image
    if needed_bytes > free_bytes:
        reason = f"it needs about {needed_bytes / 2**30:.1f} GiB, free are {free_bytes / 2**30:.1f} GiB"
        raise _does_not_fit(example, reason)
    return min(share, int((free_bytes - fixed_bytes) / bytes_per_image))


def _kept_bytes_by_shape(denoiser: nn.Module, loss: DenoisingLoss, example: Batch) -> float:
    """Compute from shapes the bytes that autograd would keep of a batch in fp32; inf if shapes do not suffice.

    A real pass at a size without later use costs memory permanently: oneDNN caches its kernels, about 50 MiB with the
    embedded base.
    """
    tensors = dict(chain(denoiser.named_parameters(), denoiser.named_buffers()))
    if loss.text is not None or not all(tensor.is_floating_point() for tensor in tensors.values()):
        return float("inf")
    shapes = {name: tensor.to("meta", torch.float32) for name, tensor in tensors.items()}
    batch = example.to(torch.device("meta"))

    def call(*inputs: Tensor, **conditioning: Tensor) -> Any:
        return functional_call(denoiser, shapes, inputs, conditioning)

    outline: Any = call  # the family only calls the network
    return _saved_bytes(
        partial(loss.family.predict, outline, batch.latents, batch.timesteps, batch.conditioning), shapes.values()
    )


def _kept_bytes(denoiser: nn.Module, loss: DenoisingLoss, example: Batch) -> int:
    """Measure the bytes that autograd keeps of a batch between forward and backward, without the parameters."""
    networks = _networks(denoiser, loss)
    parameters = [parameter for network in networks for parameter in network.parameters()]
    with torch.random.fork_rng(devices=[]):
        return max(1, _saved_bytes(partial(loss.weighted, denoiser, example), parameters))


def _saved_bytes(forward: Callable[[], object], parameters: Iterable[Tensor]) -> int:
    # Keyed by identity, because every address on the meta device is zero.
    parameter_storages = {id(storage): storage for storage in (parameter.untyped_storage() for parameter in parameters)}
    saved: dict[int, torch.UntypedStorage] = {}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in parameter_storages:
            saved[id(storage)] = storage  # a reference, so that no other storage gets the same id
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        forward()
    return sum(storage.nbytes() for storage in saved.values())


def _networks(denoiser: nn.Module, loss: DenoisingLoss) -> list[nn.Module]:
    """List the networks that a step differentiates."""
    return [denoiser, *(loss.text.encoders.values() if loss.text else ())]


def _does_not_fit(example: Batch, reason: str) -> TrainingError:
    height, width = example.latents.shape[-2:]
    return TrainingError(
        f"training.batch_size: not even one image of {width} x {height} latents fits into memory ({reason}). "
        "Set training.gradient_checkpointing, or smaller training.resolutions."
    )
