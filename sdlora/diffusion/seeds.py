"""Random generators that depend on the training step only, not on the course of the run.

Every draw of step `n` comes from a generator seeded with (seed, purpose, n). A continued run, and a run split over
several processes, therefore sees the same batches, noise and timesteps as an uninterrupted run.
"""

from __future__ import annotations

import hashlib

import torch


def step_generator(seed: int, step: int, purpose: str = "step") -> torch.Generator:
    """Return a CPU generator for one step and one purpose ("batch", "noise", ...)."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") & (2**63 - 1))
