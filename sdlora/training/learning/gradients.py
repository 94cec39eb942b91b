"""Gradients of several processes, added up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

_ELEMENTS_PER_MESSAGE = 8 * 2**20  # 32 MiB of fp32: large enough to be quick, small beside the gradients themselves


def sum_over_processes(accelerator: Accelerator, tensors: Sequence[Tensor]) -> None:
    """Replace every gradient by its sum over all processes, in few large messages.

    Not DistributedDataParallel: processes may run the network a different number of times in a step (shapes, memory),
    and the bare network stays what a step costs.
    """
    if accelerator.num_processes == 1:
        return
    for chunk in _chunks([_gradient_or_zeros(tensor) for tensor in tensors]):
        flat = accelerator.reduce(torch.cat([gradient.flatten() for gradient in chunk]), reduction="sum")
        start = 0
        for gradient in chunk:
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()


def _gradient_or_zeros(tensor: Tensor) -> Tensor:
    """Every process must send the same, so a tensor that one did not reach sends zeros."""
    if tensor.grad is None:
        tensor.grad = torch.zeros_like(tensor)
    return tensor.grad


def _chunks(gradients: Sequence[Tensor]) -> list[list[Tensor]]:
    chunks: list[list[Tensor]] = []
    element_count = _ELEMENTS_PER_MESSAGE
    for gradient in gradients:
        if element_count >= _ELEMENTS_PER_MESSAGE:
            chunks.append([])
            element_count = 0
        chunks[-1].append(gradient)
        element_count += gradient.numel()
    return chunks
