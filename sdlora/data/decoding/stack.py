"""Pictures of one size side by side in one array, so that many small ones cost as few calls as one large one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image

_PIXELS = 1 << 17  # in a stack of several: as floating-point numbers some 1.5 MB, which the processor's cache holds


@dataclass(frozen=True)
class Stack:
    """RGB pictures of one size, at least one. What is computed of each must not depend on its neighbours."""

    images: Sequence[Image.Image]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.images[0].size

    @cached_property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """(N, H, W, 3); Pillow copies them, so it is done once."""
        width, height = self.size
        content = b"".join([image.tobytes() for image in self.images])
        return np.frombuffer(content, np.uint8).reshape(len(self.images), height, width, 3)

    @cached_property
    def values(self) -> npt.NDArray[np.float32]:
        """(N, H, W, 3) the pixels as floating-point numbers."""
        return self.pixels.astype(np.float32)


def stacks(images: Sequence[Image.Image]) -> Iterator[tuple[list[int], Stack]]:
    """The pictures in stacks, each with the places of its pictures; large ones are alone."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for place, image in enumerate(images):
        by_size.setdefault(image.size, []).append(place)
    for (width, height), places in by_size.items():
        step = max(1, _PIXELS // (width * height))
        for start in range(0, len(places), step):
            some = places[start : start + step]
            yield some, Stack([images[place] for place in some])
