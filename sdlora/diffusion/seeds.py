"""Random numbers that depend on where training is, not on how it got there.

Every draw of step `n` comes from a generator seeded with (seed, purpose, n). A run that was stopped and
continued, or split over several processes, therefore sees the same batches, noise and timesteps.
"""

from __future__ import annotations

import hashlib

import torch


def step_generator(seed: int, step: int, purpose: str = "step") -> torch.Generator:
    """A CPU generator for one step of one purpose ("batch", "noise", ...)."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") & (2**63 - 1))
