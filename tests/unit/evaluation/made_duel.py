"""A duel with invented scores, for what reads duels: the gate, the report, the card."""

from __future__ import annotations

from pathlib import Path

import torch

from sdlora.evaluation.exhibits import Exhibits, write_exhibits
from sdlora.records.duel import ContestantName, Duel, Sample, Scores
from sdlora.records.metrics import Estimate


def around(value: float, reach: float) -> Estimate:
    return Estimate(value=value, low=value - reach, high=value + reach)


BASE = {
    "kid": around(0.6912, 0.041),
    "fid": around(171.3, 9.5),
    "subject_top10": around(0.41, 0.08),
    "denoising_psnr": around(17.1, 0.4),
    "denoising_ssim": around(0.71, 0.015),
    "reconstruction_psnr": around(24.6, 0.4),
    "reconstruction_ssim": around(0.93, 0.006),
    "copied_share": around(0.0, 0.0),
    "excess_copies": around(-0.06, 0.03),
    "seconds_per_image": around(0.213, 0.006),
    "seconds_per_image_p95": around(0.231, 0),
}
CANDIDATE = BASE | {
    "kid": around(0.2714, 0.032),
    "fid": around(98.2, 6.1),
    "subject_top10": around(0.47, 0.08),
    "denoising_psnr": around(20.9, 0.5),
    "denoising_ssim": around(0.86, 0.012),
    "copied_share": around(0.047, 0.03),
    "excess_copies": around(-0.016, 0.04),
}
CHAMPION = CANDIDATE | {"kid": around(0.3391, 0.035), "denoising_psnr": around(20.2, 0.5)}


def made_duel(
    candidate: dict[str, Estimate] = CANDIDATE,
    champion: dict[str, Estimate] | None = CHAMPION,
    reach: float = 0.03,
    prompts: tuple[str, ...] = ("an icon of a red circle", "an icon of a blue square"),
    folder: Path | None = None,
    images: dict[str, torch.Tensor] | None = None,
    held_out: int = 12,
) -> Duel:
    """Differences follow from the scores, with intervals of `reach` on both sides; images go to `folder`, if given.

    Of the `held_out` samples, those with `prompts` are shown.
    """
    tables: dict[ContestantName, dict[str, Estimate]] = {"base": BASE, "candidate": candidate}
    if champion is not None:
        tables["champion"] = champion
    shown, files = (), {}
    if folder is not None:
        if images is None:
            columns = ("real", "nearest", *tables)
            pixels = torch.randint(0, 256, (len(columns), len(prompts), 3, 16, 16), generator=torch.Generator())
            images = dict(zip(columns, pixels.to(torch.uint8), strict=True))
        drawn = {name: images[name] for name in tables}
        exhibits = Exhibits(prompts, images["real"], drawn, images["nearest"], [0.8] * len(prompts))
        shown, files = write_exhibits(folder, exhibits)
    return Duel(
        inputs_digest="1" * 64,
        evaluation_version=1,
        base_digest="b" * 64,
        snapshot_digest="5" * 64,
        candidate_digest="c" * 64,
        candidate_snapshot_digest="5" * 64,
        champion_digest="a" * 64 if champion is not None else None,
        champion_snapshot_digest="4" * 64 if champion is not None else None,
        settings={"steps": 20, "guidance_scale": 3.5, "copy_similarity": 0.95},
        scores={
            name: Scores(adapter_digest=None if name == "base" else name[0] * 64, metrics=table)
            for name, table in tables.items()
        },
        against_base=_differences(candidate, BASE, reach),
        against_champion=_differences(candidate, champion, reach) if champion is not None else {},
        held_out_copied_share=0.063,
        samples=tuple(
            Sample(
                held_out_sha256=f"{index:064x}",
                prompt=prompts[index % len(prompts)],
                seed=1000 + index,
                nearest_training_sha256=f"{index + 500:064x}",
                nearest_similarity=0.96 if index == 1 else 0.8,
                nearly_a_copy=index == 1,
            )
            for index in range(held_out)
        ),
        shown=shown,
        files=files,
    )


def _differences(mine: dict[str, Estimate], theirs: dict[str, Estimate], reach: float) -> dict[str, Estimate]:
    return {name: around(mine[name].value - theirs[name].value, reach) for name in mine.keys() & theirs.keys()}
