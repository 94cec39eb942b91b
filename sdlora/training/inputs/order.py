"""Order of the images: a pure function of (seed, step), so that no sampler state can be lost.

Images of different shapes cannot go through the network together. An epoch therefore consists of batches of one shape
as far as the numbers allow. The remaining images of each shape share mixed batches: their shapes go through the
network one after the other, within one optimiser step. So every step has the full batch, with equal shares for all
images. Each image is seen exactly once per epoch, or as often as its weight requires.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch

from sdlora.diffusion.seeds import step_generator


@dataclass(frozen=True)
class StepImage:
    """Image of a step.

    Attributes:
        index: its row.
        resolution: number of its resolution.
    """

    index: int
    resolution: int


def repeats_for(weights: Sequence[float]) -> list[int]:
    """Compute how often an epoch shows each image: the smallest whole numbers in the proportion of the weights, > 0.

    [1, 1, 1] and [2, 2] give ones; [1, 0.5, 3] gives [2, 1, 6], so an epoch may show even an unweighted image twice.
    """
    exact = [Fraction(weight) for weight in weights]
    scale = math.lcm(*(weight.denominator for weight in exact))
    counts = [int(weight * scale) for weight in exact]
    shared = math.gcd(*counts)
    return [count // shared for count in counts]


class EpochOrder:
    """Order of all images in every epoch; a batch may span two epochs.

    An image with `repeats` n is seen n times per epoch. With several resolutions each occurrence takes the next
    resolution in every epoch.
    """

    def __init__(
        self,
        shapes: Sequence[Sequence[Hashable]],
        batch_size: int,
        seed: int,
        repeats: Sequence[int] | None = None,
    ) -> None:
        """Take the shape of every image at each resolution.

        Args:
            shapes: by resolution, then by row.
            batch_size: images per step.
            seed: of the order.
            repeats: by row; 1 each by default.
        """
        self.shapes = shapes
        self.batch_size = batch_size
        self.seed = seed
        counts = repeats or [1] * len(shapes[0])
        self.rows = [index for index, count in enumerate(counts) for _ in range(count)]
        self._epochs: dict[int, list[int]] = {}

    def __len__(self) -> int:
        """Count the images per epoch, repeats included."""
        return len(self.rows)

    def images_of(self, step: int) -> list[StepImage]:
        """Return the images of one step, over all processes."""
        images = []
        for position in range(step * self.batch_size, (step + 1) * self.batch_size):
            epoch, offset = divmod(position, len(self))
            item = self._epoch(epoch)[offset]
            images.append(StepImage(self.rows[item], self._resolution(item, epoch)))
        return images

    def _resolution(self, item: int, epoch: int) -> int:
        return (item + epoch) % len(self.shapes)

    def _epoch(self, epoch: int) -> list[int]:
        if epoch not in self._epochs:
            if len(self._epochs) > 3:  # a batch spans few epochs; all epochs of a long run would fill the memory
                self._epochs.clear()
            self._epochs[epoch] = self._lay_out(epoch)
        return self._epochs[epoch]

    def _lay_out(self, epoch: int) -> list[int]:
        generator = step_generator(self.seed, epoch, "epoch")
        shuffled: list[int] = torch.randperm(len(self), generator=generator).tolist()
        by_shape: dict[Hashable, list[int]] = {}
        for item in shuffled:
            by_shape.setdefault(self.shapes[self._resolution(item, epoch)][self.rows[item]], []).append(item)
        if len(by_shape) == 1:
            return shuffled
        batches: list[list[int]] = []
        left_over: list[int] = []
        for items in by_shape.values():
            batched_count = len(items) - len(items) % self.batch_size
            batches += [items[start : start + self.batch_size] for start in range(0, batched_count, self.batch_size)]
            left_over += items[batched_count:]
        # Left-over images first fill the last batch of the previous epoch, so that full batches start with a step.
        lead = -epoch * len(self) % self.batch_size
        while len(left_over) < lead and batches:
            left_over = batches.pop() + left_over
        order = torch.randperm(len(batches), generator=generator).tolist()
        middle = [item for number in order for item in batches[number]]
        return left_over[:lead] + middle + left_over[lead:]
