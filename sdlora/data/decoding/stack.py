"""Stacks of equally large pictures in one array, so that many small pictures need few calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

Result = TypeVar("Result")

_PIXELS_PER_STACK = 1 << 17  # limit for several images: as floats some 1.5 MB, which fit the processor's cache


class Stack:
    """RGB pictures of one size, at least one. A result for one picture must not depend on its neighbours."""

    def __init__(self, images: Sequence[Image.Image]) -> None:
        self.images = images
        self._computed: dict[Callable[[Stack], Any], Any] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.images[0].size

    @cached_property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """Pixels (N, H, W, 3), cached because Pillow copies them."""
        width, height = self.size
        content = b"".join([image.tobytes() for image in self.images])
        return np.frombuffer(content, np.uint8).reshape(len(self.images), height, width, 3)

    def computed(self, statistic: Callable[[Stack], Result]) -> Result:
        """Return the cached result of a function of the stack."""
        if statistic not in self._computed:
            self._computed[statistic] = statistic(self)
        result: Result = self._computed[statistic]
        return result


def stacks(images: Sequence[Image.Image]) -> Iterator[tuple[list[int], Stack]]:
    """Yield stacks with the positions of their pictures. Large pictures get a stack of their own."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for position, image in enumerate(images):
        by_size.setdefault(image.size, []).append(position)
    for (width, height), positions in by_size.items():
        images_per_stack = max(1, _PIXELS_PER_STACK // (width * height))
        for start in range(0, len(positions), images_per_stack):
            chunk = positions[start : start + images_per_stack]
            yield chunk, Stack([images[position] for position in chunk])
