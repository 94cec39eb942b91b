"""Comparison of training methods and their base on the same prompts, seeds and images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sdlora.core.errors import EvaluationError
from sdlora.core.files import replace_file
from sdlora.data.snapshot import SnapshotRow
from sdlora.evaluation.contest import Contest, Contestant, load_finished, write_result
from sdlora.evaluation.exhibits import png_bytes, to_image
from sdlora.evaluation.fidelity import psnr_per_image
from sdlora.evaluation.generations import Generations
from sdlora.evaluation.grids import draw_grid
from sdlora.evaluation.prompts import Prompt
from sdlora.records.comparison import (
    BASE,
    COMPARED,
    COMPARISON_FILE,
    COMPARISON_GRID,
    Comparison,
    ContestantResult,
    load_comparison,
    title,
)
from sdlora.records.metrics import Estimate
from sdlora.statistics.bootstrap import estimate, resample_counts, resampled_means

COMPARISON_VERSION = 4


def compare(
    contest: Contest,
    contestants: Mapping[str, Contestant],
    neutral_prompts: Sequence[str],
    budget: str,
    folder: Path,
) -> Comparison:
    """Score the base and all contestants, and write `comparison.json` and a grid into `folder`.

    Args:
        contest: base, images and settings of the scoring.
        contestants: trained models by name, without the base, which is added here. Later ones are also compared with
            the first.
        neutral_prompts: two or more prompts of subjects that the base knows and no contestant trained on; they measure
            forgetting.
        budget: description of what all trainings had in common, for readers.
        folder: destination; a finished comparison of the same inputs is returned from there.

    Raises:
        EvaluationError: too few held-out images, no training images, or fewer than two neutral prompts.
    """
    if len(neutral_prompts) < 2:
        raise EvaluationError("neutral_prompts: give two or more prompts of things that the base model knows.")
    contest.require_training_images()
    inputs_digest = contest.inputs_digest(
        {
            "trained": {name: contestant.digest for name, contestant in contestants.items()},
            "neutral": list(neutral_prompts),
            "version": COMPARISON_VERSION,
        }
    )
    stored = load_finished(load_comparison, folder, inputs_digest)
    if stored is not None and (folder / COMPARISON_GRID).is_file():
        return stored
    with_base = {BASE: Contestant(contest.base), **contestants}
    held_out = contest.held_out_uint8
    # The digest separates these cache entries from those of duels, whose time per image was measured at another load.
    drawn = contest.draw(with_base, contest.prompts, held_out, _images_digest(held_out))
    neutral = [_neutral_prompt(text, contest.config.seed) for text in neutral_prompts]
    forgetting = _Forgetting(contest, with_base, neutral)
    scoreboard = contest.score(drawn)

    def difference(name: str, rival: str) -> dict[str, Estimate]:
        return _select_compared(scoreboard.difference(name, rival) | forgetting.difference(name, rival))

    reference, *later = contestants
    comparison = Comparison(
        inputs_digest=inputs_digest,
        base_digest=contest.base.digest,
        snapshot_digest=contest.snapshot.digest,
        budget=budget,
        prompts=len(contest.prompts),
        neutral_prompts=len(neutral),
        contestants=tuple(
            ContestantResult(
                name=name,
                costs=contestant.costs,
                metrics=_select_compared(scoreboard.scores[name] | forgetting.score(name)),
            )
            for name, contestant in with_base.items()
        ),
        differences={name: difference(name, BASE) for name in contestants},
        against_first={name: difference(name, reference) for name in later},
    )
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / COMPARISON_GRID, _grid_png(contest, drawn, neutral, forgetting.drawn))
    write_result(folder / COMPARISON_FILE, comparison)
    return comparison


class _Forgetting:
    """Forgetting of the neutral prompts by contestant, measured against the base's pictures on common resamples."""

    def __init__(self, contest: Contest, contestants: Mapping[str, Contestant], neutral: Sequence[Prompt]) -> None:
        """Draw the neutral prompts with the base, and restore the base's pictures with every contestant."""
        blank_uint8 = torch.zeros(len(neutral), 3, contest.side_px, contest.side_px, dtype=torch.uint8)
        base_only = {BASE: contestants[BASE]}
        base_drawn = contest.draw(base_only, neutral, blank_uint8, _images_digest(blank_uint8))[BASE]
        self.drawn = contest.draw(
            contestants, neutral, base_drawn.images_uint8, _images_digest(base_drawn.images_uint8)
        )
        self.counts = resample_counts(len(neutral), contest.config.resamples, contest.config.seed)
        self.values: dict[str, dict[str, Tensor]] = {
            name: {
                "kept_psnr": psnr_per_image(generations.denoised_uint8, base_drawn.images_uint8).double(),
                "drift": (1 - torch.cosine_similarity(generations.features, base_drawn.features).double()).clamp(min=0),
            }
            for name, generations in self.drawn.items()
        }

    def score(self, name: str) -> dict[str, Estimate]:
        return {metric: self._estimate(values) for metric, values in self.values[name].items()}

    def difference(self, name: str, rival: str) -> dict[str, Estimate]:
        return {
            metric: self._estimate(values - self.values[rival][metric]) for metric, values in self.values[name].items()
        }

    def _estimate(self, values: Tensor) -> Estimate:
        return estimate(values.mean().item(), resampled_means(values, self.counts))


def _select_compared(metrics: Mapping[str, Estimate]) -> dict[str, Estimate]:
    return {name: value for name, value in metrics.items() if name in COMPARED}


def _neutral_prompt(text: str, seed: int) -> Prompt:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Prompt(SnapshotRow(digest, (text,), "held_out"), text, (int(digest[:8], 16) + seed) % 2**32)


def _images_digest(images_uint8: Tensor) -> str:
    """Compute the SHA-256 of the pixels."""
    return hashlib.sha256(images_uint8.numpy().tobytes()).hexdigest()


def _grid_png(
    contest: Contest,
    drawn: Mapping[str, Generations],
    neutral: Sequence[Prompt],
    neutral_drawn: Mapping[str, Generations],
) -> bytes:
    """Draw held-out prompts with their real image, then neutral prompts, which have no real image."""
    count, real = contest.config.shown_prompts, contest.held_out_uint8
    blank_image = to_image(torch.full_like(real[0], 245))
    rows = [
        (prompt.text, [to_image(real[row]), *_images_of_row(drawn, row)])
        for row, prompt in enumerate(contest.prompts[:count])
    ]
    rows += [
        (prompt.text, [blank_image, *_images_of_row(neutral_drawn, row)])
        for row, prompt in enumerate(neutral[: max(2, count // 2)])
    ]
    return png_bytes(draw_grid(["real", *map(title, drawn)], rows))


def _images_of_row(drawn: Mapping[str, Generations], row: int) -> list[Image.Image]:
    return [to_image(generations.images_uint8[row]) for generations in drawn.values()]
