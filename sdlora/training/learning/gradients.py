"""Gradients of several processes, and their sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

_ELEMENTS_PER_MESSAGE = 8 * 2**20  # 32 MiB of fp32: few messages, and little memory compared with the gradients


def sum_over_processes(accelerator: Accelerator, tensors: Sequence[Tensor]) -> None:
    """Replace every gradient by its sum over all processes, in a few large messages.

    DistributedDataParallel does not fit. It needs the same number of network calls per step in every process, but here
    the number depends on image shapes and memory. A single process should not pay for the wrapper.
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
    """Return the gradient, or zeros without one: every process must send the same tensors."""
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
