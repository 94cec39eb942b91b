"""Nearest real images in feature space: is the subject there, and is a sample a copy of a training image?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize


def nearest(queries: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    """(Q, D) and (G, D) features -> (Q,) largest cosine similarity and (Q,) index of that gallery row."""
    similarity, index = (normalize(queries.double()) @ normalize(gallery.double()).T).max(1)
    return similarity, index


def subject_found(
    generated: Tensor,
    prompts: Sequence[str],
    real: Tensor,
    captions: Sequence[Sequence[str]],
    neighbour_count: int = 10,
) -> Tensor:
    """(Q,) 1.0 where a real image with the sample's caption is among its nearest real images, else 0.0.

    Needs no outside judge. Each side is centred on its own mean first, so that a difference of style, which all
    samples share, does not decide. Chance level is about `neighbour_count` / number of real images.

    Args:
        generated: (Q, D) features of the samples.
        prompts: their Q prompts.
        real: (G, D) features of real images, among them the held-out ones that the prompts come from.
        captions: the G images' captions.
        neighbour_count: how many nearest images are looked at.
    """
    similarity = _centred(generated) @ _centred(real).T  # (Q, G)
    nearest_rows = similarity.topk(min(neighbour_count, len(real)), dim=1).indices.tolist()
    hits = [
        any(prompt in captions[index] for index in indices)
        for prompt, indices in zip(prompts, nearest_rows, strict=True)
    ]
    return torch.tensor(hits, dtype=torch.float64)


def _centred(features: Tensor) -> Tensor:
    return normalize(features.double() - features.double().mean(0))
