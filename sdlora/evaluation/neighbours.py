"""Nearest real images in feature space, to find subjects and copies of training images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize


def nearest(queries: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    """Find for (Q, D) features the largest cosine similarity, (Q,), and its row in the (G, D) gallery, (Q,)."""
    similarity, index = (normalize(queries.double()) @ normalize(gallery.double()).T).max(1)
    return similarity, index


def subject_found(
    generated: Tensor,
    prompts: Sequence[str],
    real: Tensor,
    captions: Sequence[Sequence[str]],
    neighbour_count: int = 10,
) -> Tensor:
    """Find the samples with a real image of the same caption among their nearest real images.

    The measure needs no further model. Samples and real images are centred on their own means first, so that a
    difference of style, which all samples share, does not decide. Chance level is about `neighbour_count` / G.

    Args:
        generated: (Q, D) features of the samples.
        prompts: their Q prompts.
        real: (G, D) features of real images, among them the held-out ones that the prompts come from.
        captions: the G images' captions.
        neighbour_count: number of nearest images per sample.

    Returns:
        (Q,) 1.0 for a sample whose subject is found, else 0.0.
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
