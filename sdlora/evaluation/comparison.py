"""Score several trained models and their base on the same prompts, seeds and images, and what each forgot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sdlora.core.errors import EvaluationError
from sdlora.core.files import json_digest, replace_file
from sdlora.core.progress import OnProgress
from sdlora.core.refs import AdapterRef, BaseModelRef
from sdlora.data.pixels import load_images_uint8
from sdlora.data.snapshot import Snapshot, SnapshotRow
from sdlora.evaluation.config import EvaluationConfig
from sdlora.evaluation.exhibits import png_bytes, to_image
from sdlora.evaluation.fidelity import psnr_per_image, ssim_per_image
from sdlora.evaluation.generations import Generations, generations
from sdlora.evaluation.grids import draw_grid
from sdlora.evaluation.prompts import Prompt, choose_prompts
from sdlora.evaluation.scoring import Measured, RealFeatures, Scoreboard
from sdlora.models import parts
from sdlora.models.features import ImageFeatures
from sdlora.models.stable_diffusion import StableDiffusion
from sdlora.records.comparison import (
    BASE,
    COMPARED,
    COMPARISON_FILE,
    COMPARISON_GRID,
    Comparison,
    Contender,
    load_comparison,
    title,
)
from sdlora.records.metrics import Estimate
from sdlora.statistics.bootstrap import estimate, resample_counts, resampled_means
from sdlora.store.image_store import ImageStore

COMPARING_VERSION = 3


@dataclass(frozen=True)
class Trained:
    """One contender: an adapter of the base, or a whole model, with what it cost."""

    model: BaseModelRef
    adapter: AdapterRef | None
    steps: int
    trained_parameters: int
    seconds: float
    processor_seconds: float
    process_peak_bytes: int
    training_peak_bytes: int
    file_bytes: int

    @property
    def digest(self) -> str:
        return f"{self.model.digest}/{self.adapter.digest if self.adapter else ''}"


def compare(
    base: BaseModelRef,
    trained: Mapping[str, Trained],
    snapshot: Snapshot,
    store: ImageStore,
    config: EvaluationConfig,
    neutral_prompts: Sequence[str],
    budget: str,
    folder: Path,
    on_progress: OnProgress,
) -> Comparison:
    """Score the base and every contender, and write `comparison.json` and a grid into `folder`.

    Args:
        base: what all began with.
        trained: contenders by name.
        snapshot: they learnt from its training rows; its held-out rows are drawn.
        store: holds the images.
        config: samplers and statistics.
        neutral_prompts: what the base knew and nobody trained on; tells what was forgotten.
        budget: what was held equal, for readers.
        folder: results; a finished comparison of the same inputs is returned.
        on_progress: called with "draw with ...".

    Raises:
        EvaluationError: too few held-out images, or fewer than two neutral prompts.
    """
    if len(neutral_prompts) < 2:
        raise EvaluationError("neutral_prompts: give two or more prompts of things that the base model knows.")
    prompts = choose_prompts(snapshot.held_out, config)
    inputs = {
        "base": base.digest,
        "trained": {name: one.digest for name, one in trained.items()},
        "snapshot": snapshot.digest,
        "config": config.model_dump(mode="json"),
        "neutral": list(neutral_prompts),
        "version": COMPARING_VERSION,
    }
    inputs_digest = json_digest(inputs)
    try:
        finished = load_comparison(folder)
        if finished.inputs_digest == inputs_digest and (folder / COMPARISON_GRID).is_file():
            return finished
    except EvaluationError:
        pass  # not there yet, or of an earlier version: it is made anew
    everyone = {BASE: Trained(base, None, 0, 0, 0.0, 0.0, 0, 0, 0), **trained}
    side_px = parts.native_resolution(base)
    held_out = load_images_uint8(store, [prompt.row for prompt in prompts], side_px)  # (N, 3, S, S)
    drawn = {
        name: _draw(name, one, prompts, held_out, config, store.home, on_progress) for name, one in everyone.items()
    }
    neutral = [_neutral(text, config.seed) for text in neutral_prompts]
    nothing = torch.zeros(len(neutral), *held_out.shape[1:], dtype=torch.uint8)
    known = _draw("base", everyone[BASE], neutral, nothing, config, store.home, on_progress)
    kept = {
        name: _draw(name, one, neutral, known.images_uint8, config, store.home, on_progress)
        for name, one in everyone.items()
    }
    network = ImageFeatures()
    real = RealFeatures(
        held_out=network(held_out),
        held_out_captions=[prompt.row.captions for prompt in prompts],
        train=torch.cat([network(load_images_uint8(store, [row], side_px)) for row in snapshot.train]),
        train_captions=[row.captions for row in snapshot.train],
    )
    board = Scoreboard([prompt.text for prompt in prompts], real, config)
    forgotten = _Forgetting(known, kept, config)
    contenders = []
    for name, one in everyone.items():
        made = drawn[name]
        fidelity = {
            "denoising_psnr": psnr_per_image(made.denoised_uint8, held_out),
            "denoising_ssim": ssim_per_image(made.denoised_uint8, held_out),
        }
        # The board's contestants are named for the duel; any names will do for its arithmetic.
        scores = board.score(name, Measured(made.features, made.batch_seconds, fidelity))  # type: ignore[arg-type]
        metrics = {key: value for key, value in {**scores, **forgotten.score(name)}.items() if key in COMPARED}
        contenders.append(
            Contender(
                name=name,
                steps=one.steps,
                trained_parameters=one.trained_parameters,
                seconds=one.seconds,
                processor_seconds=one.processor_seconds,
                process_peak_bytes=one.process_peak_bytes,
                training_peak_bytes=one.training_peak_bytes,
                file_bytes=one.file_bytes,
                metrics=metrics,
            )
        )
    first, *others = trained
    comparison = Comparison(
        inputs_digest=inputs_digest,
        base_digest=base.digest,
        snapshot_digest=snapshot.digest,
        budget=budget,
        prompts=len(prompts),
        neutral_prompts=len(neutral),
        contenders=tuple(contenders),
        differences={name: _difference(board, forgotten, name, BASE) for name in trained},
        against_first={name: _difference(board, forgotten, name, first) for name in others},
    )
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / COMPARISON_GRID, _grid(prompts, held_out, drawn, neutral, kept, config.shown_prompts))
    content = json.dumps(comparison.model_dump(mode="json"), indent=1).encode()
    replace_file(folder / COMPARISON_FILE, content)
    return comparison


class _Forgetting:
    """What became of the base's own pictures, by contender, on the same resamples of the neutral prompts."""

    def __init__(self, known: Generations, kept: Mapping[str, Generations], config: EvaluationConfig) -> None:
        self.counts = resample_counts(len(known.features), config.resamples, config.seed)
        self.values: dict[str, dict[str, Tensor]] = {
            name: {
                "kept_psnr": psnr_per_image(made.denoised_uint8, known.images_uint8).double(),
                "drift": (1 - torch.cosine_similarity(made.features, known.features).double()).clamp(min=0),
            }
            for name, made in kept.items()
        }

    def score(self, name: str) -> dict[str, Estimate]:
        return {metric: self._estimate(values) for metric, values in self.values[name].items()}

    def difference(self, name: str, rival: str) -> dict[str, Estimate]:
        return {
            metric: self._estimate(values - self.values[rival][metric]) for metric, values in self.values[name].items()
        }

    def _estimate(self, values: Tensor) -> Estimate:
        return estimate(values.mean().item(), resampled_means(values, self.counts))


def _difference(board: Scoreboard, forgotten: _Forgetting, name: str, rival: str) -> dict[str, Estimate]:
    # As above: any names will do.
    found = {**board.difference(name, rival), **forgotten.difference(name, rival)}  # type: ignore[arg-type]
    return {metric: value for metric, value in found.items() if metric in COMPARED}


def _neutral(text: str, seed: int) -> Prompt:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Prompt(SnapshotRow(digest, (text,), "held_out"), text, (int(digest[:8], 16) + seed) % 2**32)


def _draw(
    name: str,
    one: Trained,
    prompts: Sequence[Prompt],
    images_uint8: Tensor,
    config: EvaluationConfig,
    home: Path,
    on_progress: OnProgress,
) -> Generations:
    content = hashlib.sha256(images_uint8.numpy().tobytes()).hexdigest()  # restored images depend on these, too
    return generations(
        lambda: StableDiffusion.from_ref(one.model, one.adapter),
        f"{one.digest}/{content}",
        prompts,
        images_uint8,
        config,
        home,
        lambda done: on_progress(f"draw with {name}", done, len(prompts)),
    )


def _grid(
    prompts: Sequence[Prompt],
    held_out: Tensor,
    drawn: Mapping[str, Generations],
    neutral: Sequence[Prompt],
    kept: Mapping[str, Generations],
    count: int,
) -> bytes:
    """Held-out prompts with their real image, then other subjects, which have none."""
    blank = to_image(torch.full_like(held_out[0], 245))
    rows = [
        (prompt.text, [to_image(held_out[row]), *(to_image(made.images_uint8[row]) for made in drawn.values())])
        for row, prompt in enumerate(prompts[:count])
    ]
    rows += [
        (prompt.text, [blank, *(to_image(made.images_uint8[row]) for made in kept.values())])
        for row, prompt in enumerate(neutral[: max(2, count // 2)])
    ]
    return png_bytes(draw_grid(["real", *map(title, drawn)], rows))
