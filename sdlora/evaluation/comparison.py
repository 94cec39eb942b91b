"""Comparison of training methods and their base on the same prompts, seeds and images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sdlora.core.errors import EvaluationError
from sdlora.core.files import replace_file
from sdlora.data.snapshot import SnapshotRow
from sdlora.evaluation.contest import Contest, Contestant, finished, write_result
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

COMPARING_VERSION = 3


def compare(
    contest: Contest,
    contestants: Mapping[str, Contestant],
    neutral_prompts: Sequence[str],
    budget: str,
    folder: Path,
) -> Comparison:
    """Score the base and every contestant, and write `comparison.json` and a grid into `folder`.

    Args:
        contest: what they are scored on.
        contestants: what was trained, by name; the base is scored besides.
        neutral_prompts: what the base knew and nobody trained on; tells what was forgotten.
        budget: what was held equal, for readers.
        folder: results; a finished comparison of the same inputs is returned.

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
            "version": COMPARING_VERSION,
        }
    )
    earlier = finished(load_comparison, folder, inputs_digest)
    if earlier is not None and (folder / COMPARISON_GRID).is_file():
        return earlier
    with_base = {BASE: Contestant(contest.base), **contestants}
    held_out = contest.held_out_uint8
    # Under a name of their own: pictures of a duel would bring the time per image of another day.
    drawn = contest.draw(with_base, contest.prompts, held_out, _content(held_out))
    neutral = [_neutral(text, contest.config.seed) for text in neutral_prompts]
    forgetting = _Forgetting(contest, with_base, neutral)
    board = contest.score(drawn)

    def difference(name: str, rival: str) -> dict[str, Estimate]:
        return _compared(board.difference(name, rival) | forgetting.difference(name, rival))

    first, *others = contestants
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
                metrics=_compared(board.scores[name] | forgetting.score(name)),
            )
            for name, contestant in with_base.items()
        ),
        differences={name: difference(name, BASE) for name in contestants},
        against_first={name: difference(name, first) for name in others},
    )
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / COMPARISON_GRID, _grid(contest, drawn, neutral, forgetting.drawn))
    write_result(folder / COMPARISON_FILE, comparison)
    return comparison


class _Forgetting:
    """Losses of the base's own pictures by contestant, on the same resamples of the neutral prompts."""

    def __init__(self, contest: Contest, contestants: Mapping[str, Contestant], neutral: Sequence[Prompt]) -> None:
        """Draw the neutral prompts with the base, and restore what it drew with every contestant."""
        nothing = torch.zeros(len(neutral), 3, contest.side_px, contest.side_px, dtype=torch.uint8)
        base = {BASE: contestants[BASE]}
        known = contest.draw(base, neutral, nothing, _content(nothing))[BASE]
        self.drawn = contest.draw(contestants, neutral, known.images_uint8, _content(known.images_uint8))
        self.counts = resample_counts(len(neutral), contest.config.resamples, contest.config.seed)
        self.values: dict[str, dict[str, Tensor]] = {
            name: {
                "kept_psnr": psnr_per_image(made.denoised_uint8, known.images_uint8).double(),
                "drift": (1 - torch.cosine_similarity(made.features, known.features).double()).clamp(min=0),
            }
            for name, made in self.drawn.items()
        }

    def score(self, name: str) -> dict[str, Estimate]:
        return {metric: self._estimate(values) for metric, values in self.values[name].items()}

    def difference(self, name: str, rival: str) -> dict[str, Estimate]:
        return {
            metric: self._estimate(values - self.values[rival][metric]) for metric, values in self.values[name].items()
        }

    def _estimate(self, values: Tensor) -> Estimate:
        return estimate(values.mean().item(), resampled_means(values, self.counts))


def _compared(metrics: Mapping[str, Estimate]) -> dict[str, Estimate]:
    return {name: value for name, value in metrics.items() if name in COMPARED}


def _neutral(text: str, seed: int) -> Prompt:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Prompt(SnapshotRow(digest, (text,), "held_out"), text, (int(digest[:8], 16) + seed) % 2**32)


def _content(images_uint8: Tensor) -> str:
    """Compute the SHA-256 of pictures."""
    return hashlib.sha256(images_uint8.numpy().tobytes()).hexdigest()


def _grid(
    contest: Contest,
    drawn: Mapping[str, Generations],
    neutral: Sequence[Prompt],
    neutral_drawn: Mapping[str, Generations],
) -> bytes:
    """Draw held-out prompts with their real image, then neutral prompts, which have none."""
    count, real = contest.config.shown_prompts, contest.held_out_uint8
    blank = to_image(torch.full_like(real[0], 245))
    rows = [
        (prompt.text, [to_image(real[row]), *(to_image(made.images_uint8[row]) for made in drawn.values())])
        for row, prompt in enumerate(contest.prompts[:count])
    ]
    rows += [
        (prompt.text, [blank, *(to_image(made.images_uint8[row]) for made in neutral_drawn.values())])
        for row, prompt in enumerate(neutral[: max(2, count // 2)])
    ]
    return png_bytes(draw_grid(["real", *map(title, drawn)], rows))
