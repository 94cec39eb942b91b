"""The pictures that cleanvision scored: drawings, gradients, noise, photograph-like ones; made by numpy alone."""

from __future__ import annotations

import numpy as np
from PIL import Image


def pictures() -> dict[str, Image.Image]:
    """RGB pictures by name: dark, light, blurred, plain, long and ordinary ones, of 40 to 500 px."""
    dice = np.random.default_rng(7)
    down, across = np.mgrid[0:300, 0:400]
    gradient = np.stack([down * 255 // 299, across * 255 // 399, (down + across) * 255 // 698], axis=2)
    noise = dice.integers(0, 256, (300, 400, 3))
    waves = 127.5 + 80 * np.sin(across / 9)[..., None] * np.cos(down / 7)[..., None] + dice.normal(0, 12, (300, 400, 3))
    ink = np.full((64, 64, 3), 255)
    ink[20:44, 30:34] = 0
    hairline = np.full((200, 200, 3), 255)
    hairline[100, 20:180] = 10
    arrays = {
        "gradient": gradient,
        "out of focus": gradient * 0.5 + 60,
        "noise": noise,
        "waves": waves,
        "dark waves": waves * 0.2,
        "nearly black": dice.integers(0, 9, (100, 120, 3)),
        "light waves": 255 - waves * 0.04,
        "icon": ink,
        "hairline": hairline,
        "plain": np.full((80, 80, 3), (200, 180, 40)),
        "soft": 120 + 10 * np.sin(across / 60)[..., None] * np.ones(3),
        "strip": waves[:100, :400],
        "small": waves[:40, :41],
        "large": np.tile(waves, (2, 2, 1))[:500, :500],
    }
    return {name: Image.fromarray(values.clip(0, 255).astype(np.uint8)) for name, values in arrays.items()}
