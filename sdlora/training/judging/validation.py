"""Validation loss, comparable between steps and runs: fixed images, fixed noise, fixed timesteps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from sdlora.data.snapshot import SnapshotRow
from sdlora.diffusion.seeds import step_generator
from sdlora.training.inputs.batches import Batch, stack_conditioning
from sdlora.training.inputs.encoded import EncodedRows
from sdlora.training.learning.loss import DenoisingLoss

MAX_IMAGES = 64
TIMESTEPS_PER_IMAGE = 4


class FixedNoiseValidation:
    """Unweighted error on held-out images, each at the middle of four equal strata of the noise schedule.

    The digest of an image seeds its noise, so other images in the snapshot do not change the image's error. Images
    have the first resolution of the run.
    """

    def __init__(
        self, encoded: EncodedRows, loss: DenoisingLoss, seed: int, batch_size: int, device: torch.device
    ) -> None:
        self.loss = loss
        self.device = device
        self.batches = [
            _fixed_batch(encoded, pairs, loss.objective.num_train_timesteps, seed)
            for pairs in _chunks_of_one_shape(encoded, batch_size)
        ]

    @torch.no_grad()
    def measure(self, denoiser: nn.Module, check: Callable[[], None] = lambda: None) -> Tensor:
        """Measure one error per image, the mean over its timesteps: (N,), always in the same order.

        Args:
            denoiser: network to measure.
            check: called before each batch; may raise.
        """
        was_training, errors = denoiser.training, []
        denoiser.eval()
        try:
            for batch in self.batches:
                check()
                errors.append(self.loss.per_image(denoiser, batch.to(self.device)))
        finally:
            denoiser.train(was_training)
        return torch.cat(errors).view(-1, TIMESTEPS_PER_IMAGE).mean(1).cpu()


def _chunks_of_one_shape(encoded: EncodedRows, size: int) -> Iterator[list[tuple[SnapshotRow, int]]]:
    """Yield pairs of image and stratum of the schedule, at most `size` of one shape."""
    # Sorted by digest, so that the choice does not depend on the order in which images arrived.
    rows = sorted(encoded.rows, key=lambda row: row.sha256)[:MAX_IMAGES]
    latents = encoded.resolutions[0].latents
    by_shape: dict[tuple[int, ...], list[tuple[SnapshotRow, int]]] = {}
    for row in rows:
        pairs = by_shape.setdefault(tuple(latents[row.sha256].shape), [])
        pairs += [(row, stratum) for stratum in range(TIMESTEPS_PER_IMAGE)]
    for pairs in by_shape.values():
        yield from (pairs[start : start + size] for start in range(0, len(pairs), size))


def _fixed_batch(
    encoded: EncodedRows, pairs: Sequence[tuple[SnapshotRow, int]], num_train_timesteps: int, seed: int
) -> Batch:
    latents = encoded.resolutions[0].latents
    noise: list[Tensor] = []
    for row, stratum in pairs:
        generator = step_generator(seed, stratum, f"validation/{row.sha256}")
        noise.append(torch.randn(latents[row.sha256].shape, generator=generator))
    return Batch(
        latents=torch.stack([latents[row.sha256] for row, _ in pairs]),
        noise=torch.stack(noise),
        timesteps=torch.tensor(
            [int((stratum + 0.5) * num_train_timesteps / TIMESTEPS_PER_IMAGE) for _, stratum in pairs]
        ),
        conditioning=stack_conditioning(
            [encoded.conditioning(row, 0, row.captions[0] if row.captions else "") for row, _ in pairs]
        ),
    )
