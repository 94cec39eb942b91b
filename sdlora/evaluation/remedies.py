"""What a person can do about the checks that a candidate failed, in a sentence that names the settings."""

from __future__ import annotations

from collections.abc import Set

from sdlora.core.refs import UNKNOWN_SNAPSHOT
from sdlora.records.decision import Answer
from sdlora.records.duel import Duel
from sdlora.records.metrics import METRICS

TOO_FEW = "enough held-out images"
BASE = "better than the base"
COPIES = "near copies"
_RESTORING = {METRICS["denoising_psnr"].label, METRICS["denoising_ssim"].label}


def remedy(duel: Duel, failed: Set[str], answer: Answer) -> str | None:
    """Return what may help a candidate that failed checks of the gate; None where nothing is known.

    Args:
        duel: the duel that the gate read.
        failed: names of the failed checks.
        answer: the gate's answer.
    """
    if duel.candidate_snapshot_digest == UNKNOWN_SNAPSHOT:  # adopted from a file: its training is not ours
        return None
    if COPIES in failed or failed & _RESTORING:
        found = "draws copies of its training images" if COPIES in failed else "restores unseen images worse"
        if answer == "cannot tell":
            found = f"perhaps {found}"
        return (
            f"What helps: the adapter {found}, as happens when it trains too long on too few images. Add images, or "
            "lower training.steps or training.learning_rate, and run again."
        )
    if TOO_FEW in failed:
        return "What helps: more images. A share of them, data.held_out_fraction, is held out and judges."
    if BASE in failed and answer == "cannot tell":
        return (
            f"What helps: more images, because {len(duel.samples)} held-out ones show large differences only. The "
            "before/after pictures may show what the numbers cannot."
        )
    if BASE in failed:
        return (
            "What helps: it has not learnt the style. Check the images and captions (sdlora images page), or raise "
            "training.steps, and run again."
        )
    return None
