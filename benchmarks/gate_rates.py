"""Rates at which the gate promotes candidates that are better than, as good as, or worse than the champion.

    python benchmarks/gate_rates.py RUN/evaluation/duel.json [--duels 2000]

Each simulated duel draws the KID difference to the champion from a normal distribution around its true value. The
width comes from the given duel's own interval against the champion, or against the base where no champion took part.
All other scores stay as they were, so only the rule about the champion decides.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from sdlora.evaluation.config import GateConfig
from sdlora.evaluation.gate import decide
from sdlora.records.duel import Duel
from sdlora.records.metrics import Estimate

SHARES_OF_GAIN = (0.05, 0.0, -0.05, -0.1)
"""True change of the champion's gain over the base: above zero is better."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("duel", type=Path, help="duel.json of a run")
    parser.add_argument("--duels", type=int, default=2000)
    options = parser.parse_args()
    duel = Duel.model_validate_json(options.duel.read_text())
    measured = duel.against_champion.get("kid") or duel.against_base["kid"]
    base, champion = (duel.scores[name].metrics["kid"].value for name in ("base", "candidate"))
    half = (measured.high - measured.low) / 2
    print(f"gain of the champion {base - champion:.4f} KID, half interval of the difference {half:.4f}")
    for share in SHARES_OF_GAIN:
        drawn = np.random.default_rng(0).normal(-share * (base - champion), half / 1.96, options.duels)
        promoted = [_promotes(duel, champion, float(difference), half) for difference in drawn]
        print(f"  candidate with {1 + share:.0%} of the champion's gain: promoted in {np.mean(promoted):.1%} of duels")


def _promotes(duel: Duel, champion_kid: float, difference: float, half: float) -> bool:
    scores = dict(duel.scores) | {"champion": duel.scores["candidate"]}
    against_champion = dict(duel.against_base) | {
        "kid": Estimate(value=difference, low=difference - half, high=difference + half)
    }
    simulated = duel.model_copy(
        update={
            "scores": scores,
            "against_champion": against_champion,
            "champion_digest": "0" * 64,
            "champion_snapshot_digest": "1" * 64,
        }
    )
    return decide(simulated, GateConfig(max_denoising_psnr_drop_db=None, max_denoising_ssim_drop=None)).promote


if __name__ == "__main__":
    main()
