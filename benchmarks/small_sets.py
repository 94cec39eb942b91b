"""What a duel can tell from few held-out images: rates of its intervals on subsets of a large duel.

    python -m benchmarks.small_sets HOME RUN/evaluation/duel.json [--trials 1000]

Each trial draws N held-out images of the duel without replacement, and measures base and candidate on them as a duel of
N images would. The true difference is known in two cases. In the first, the candidate is as trained. In the second, a
coin for each image decides whose picture is the candidate's and whose the base's, so the two are equal in expectation,
and an honest 95 % interval lies below zero in at most 2.5 % of the trials. Nothing is drawn by a network: the pictures
come from the state folder's cache.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from sdlora.data.snapshot import load_snapshot
from sdlora.evaluation.config import EvaluationConfig
from sdlora.evaluation.contest import Contest, Contestant, fidelity_per_image
from sdlora.lora.load import open_adapter
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.records.duel import load_duel
from sdlora.records.metrics import Estimate
from sdlora.statistics import distances
from sdlora.statistics.bootstrap import estimate, paired_difference, resample_counts
from sdlora.store.image_store import ImageStore

SIZES = (4, 5, 6, 8, 10, 12, 16, 24, 48)
RESAMPLES = 1000
CASES = ("as trained", "equal by coin")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("duel", type=Path, help="duel.json of a run on the embedded base")
    parser.add_argument("--trials", type=int, default=1000)
    options = parser.parse_args()
    duel = load_duel(options.duel.parent)
    config = EvaluationConfig.model_validate(duel.settings)
    base = load_base_model(BaseModelConfig(), options.home)
    adapter = open_adapter(options.duel.parent.parent / "adapter")
    with ImageStore.open(options.home) as store:
        contest = Contest(base, load_snapshot(store, duel.snapshot_digest), store, config)
        contestants = {"base": Contestant(base), "candidate": Contestant(base, adapter)}
        drawn = contest.draw(contestants, contest.prompts, contest.held_out_uint8)
        real = contest.real_features.held_out
        psnr = [
            fidelity_per_image("denoising", drawn[name].denoised_uint8, contest.held_out_uint8)["denoising_psnr"]
            for name in contestants
        ]
    features = [drawn[name].features for name in contestants]
    print(f"{len(real)} held-out images, {options.trials} trials, {RESAMPLES} resamples; share of intervals in favour")
    print("| held-out images | case | KID has an interval | KID below zero | denoising PSNR above zero |")
    print("|---|---|---|---|---|")
    for size in SIZES:
        for case in CASES:
            generator = torch.Generator().manual_seed(size)
            outcomes = [_trial(real, features, psnr, size, case, generator) for _ in range(options.trials)]
            measured, kid, restored = (sum(column) / options.trials for column in zip(*outcomes, strict=True))
            print(f"| {size} | {case} | {measured:.1%} | {kid:.1%} | {restored:.1%} |", flush=True)


def _trial(
    real: Tensor, features: list[Tensor], psnr: list[Tensor], size: int, case: str, generator: torch.Generator
) -> tuple[bool, bool, bool]:
    chosen = torch.randperm(len(real), generator=generator)[:size]
    swapped = torch.rand(size, generator=generator) < (0.5 if case == "equal by coin" else 0.0)
    base, candidate = (values[chosen] for values in features)
    base, candidate = (
        torch.where(swapped[:, None], candidate, base),
        torch.where(swapped[:, None], base, candidate),
    )
    theirs, ours = (values[chosen] for values in psnr)
    theirs, ours = torch.where(swapped, ours, theirs), torch.where(swapped, theirs, ours)
    kid = _kid_difference(real[chosen], base, candidate)
    measured = bool(torch.isfinite(torch.tensor([kid.low, kid.high])).all())
    return measured, kid.high < 0, paired_difference(ours, theirs, 0, RESAMPLES).low > 0


def _kid_difference(real: Tensor, base: Tensor, candidate: Tensor) -> Estimate:
    counts = resample_counts(len(real), RESAMPLES, 0)
    kernels = [distances.polynomial_kernels(real, drawn) for drawn in (base, candidate)]
    ours, theirs = (distances.resampled_kid(one, counts) for one in (kernels[1], kernels[0]))
    # The value decides nothing here, and torchmetrics' own computation of it is slow.
    return estimate(float((ours - theirs).mean()), ours - theirs)


if __name__ == "__main__":
    main()
