"""The rule that reads a duel and says whether the candidate becomes the champion.

Differences are paired, and the gate reads the unfavourable end of their 95 % interval: doubt counts against the
candidate. Against the bare base the candidate must be better beyond doubt. Against a champion there are two rules:

`better`: the interval of the KID difference lies wholly below zero. Safe, but with a hundred held-out images a
    champion would often stay although the candidate has learnt from more images, because the gain is smaller
    than the noise.
`not_worse` (default): for a candidate trained on another snapshot than the champion. It must score at least as
    well on average, and the interval must leave it most of the champion's gain over the base: all but
    `max_lost_gain`. The margin is a share of the proven effect, as in non-inferiority trials, so it needs no tuning
    to a data set's KID scale; the first condition keeps many small losses from adding up over promotions.
    A candidate from the champion's own snapshot has no new images to offer and must still be `better`.
    The rule is fair and not certain: a candidate exactly as good as the champion passes about half of its duels,
    because chance puts its measured difference above or below zero. `benchmarks/gate_rates.py` measures such rates.

Near copies are the exception: the gate reads their share as measured, and shows its interval. The upper end would
refuse every style with fewer than 73 held-out images, even without a single copy: 0 of 72 reaches up to 5.1 %.

Every metric that a rule reads must be measured and finite; otherwise the candidate is not promoted.

The answer is `better` if all checks pass. It is `cannot tell` if every failed check leaves both possible: the interval
of its KID difference contains zero, or, with `min_improvement`, the improvement that is asked for, and the interval of
each score whose limit is not kept reaches to the limit. It is `worse` otherwise. `gate.mode` says which answers wait
for a person's decision.

With fewer than `MIN_HELD_OUT_IMAGES` held-out images no interval is read. The answer is then `cannot tell`, unless a
limit is broken beyond doubt, and the candidate waits for a person in every mode.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from sdlora.core.refs import UNKNOWN_SNAPSHOT
from sdlora.evaluation.config import GateConfig
from sdlora.evaluation.remedies import BASE, COPIES, TOO_FEW, remedy
from sdlora.records.decision import Answer, Decision, GateCheck
from sdlora.records.duel import CONTESTANTS, Duel
from sdlora.records.metrics import METRICS, Estimate, Metric

MIN_HELD_OUT_IMAGES = 6
"""Fewest held-out images whose intervals the gate reads. With five, the chance that all five differences have one sign
by luck is 2 / 2^5 = 6 %, so no paired test of them reaches 95 %; resampled KID often has no interval at all."""


@dataclass(frozen=True)
class _Finding:
    """Check with its outcome; `is_doubt` is True if the candidate may satisfy it even though it failed."""

    check: GateCheck
    is_doubt: bool = False


def decide(duel: Duel, gate: GateConfig) -> Decision:
    """Apply every check, and say who decides: with `gate.mode` "automatic", the candidate is promoted if all pass."""
    has_few_images = _has_few_images(duel)
    missing = tuple(map(_Finding, _missing_metrics(duel, gate, with_interval=not has_few_images)))
    findings = missing or tuple(_findings_on_few_images(duel, gate) if has_few_images else _findings(duel, gate))
    answer = _answer(findings)
    checks = tuple(finding.check for finding in findings)
    help_text = remedy(duel, {check.name for check in checks if not check.passed}, answer)
    return Decision(
        promote=answer == "better" and gate.mode != "manual",
        reasons=(
            *(check.reason for check in checks if answer == "better" or not check.passed),
            *([help_text] if help_text else []),
        ),
        checks=checks,
        duel_digest=duel.digest(),
        candidate_digest=duel.candidate_digest,
        champion_digest=duel.champion_digest,
        answer=answer,
        waits=gate.mode == "manual" or (answer == "cannot tell" and (gate.mode == "ask" or has_few_images)),
    )


def _answer(findings: tuple[_Finding, ...]) -> Answer:
    failed = [finding for finding in findings if not finding.check.passed]
    if not failed:
        return "better"
    return "cannot tell" if all(finding.is_doubt for finding in failed) else "worse"


def _has_few_images(duel: Duel) -> bool:
    """Return True if there are too few held-out images for intervals, or if resamples of few have no KID."""
    if len(duel.samples) < MIN_HELD_OUT_IMAGES:
        return True
    differences = [table["kid"] for table in (duel.against_base, duel.against_champion) if "kid" in table]
    return any(math.isfinite(kid.value) and not _is_measured(kid) for kid in differences)


def _missing_metrics(duel: Duel, gate: GateConfig, *, with_interval: bool) -> Iterator[GateCheck]:
    limits = {
        "denoising_psnr": gate.max_denoising_psnr_drop_db,
        "denoising_ssim": gate.max_denoising_ssim_drop,
        "seconds_per_image": gate.max_time_factor,
        "excess_copies": gate.max_excess_copies,
    }
    scored = {"kid", *gate.required_metrics, *(name for name, limit in limits.items() if limit is not None)}
    compared = scored & {"kid", "denoising_psnr", "denoising_ssim"}
    for contestant in CONTESTANTS:
        if contestant != "champion" or duel.champion_digest is not None:
            found = duel.scores[contestant].metrics if contestant in duel.scores else {}
            yield from _unmeasured(scored, found, contestant, with_interval=with_interval)
    yield from _unmeasured(compared, duel.against_base, "candidate against base", with_interval=with_interval)
    if duel.champion_digest is not None:
        where = "candidate against champion"
        yield from _unmeasured(compared, duel.against_champion, where, with_interval=with_interval)


def _unmeasured(names: set[str], found: dict[str, Estimate], where: str, *, with_interval: bool) -> Iterator[GateCheck]:
    for name in sorted(names):
        if not _is_measured(found.get(name), with_interval=with_interval):
            missing = f"Missing metric {name} ({where})"
            if name in found:
                missing += ", it is not a number or has no interval, as happens with too few held-out images"
            reason = f"{missing}: nothing is promoted on incomplete evidence."
            yield GateCheck(name=f"{name} measured ({where})", passed=False, reason=reason)


def _is_measured(estimate: Estimate | None, *, with_interval: bool = True) -> bool:
    if estimate is None:
        return False
    ends = (estimate.low, estimate.high) if with_interval else ()
    return all(map(math.isfinite, (estimate.value, *ends)))


def _findings(duel: Duel, gate: GateConfig) -> Iterator[_Finding]:
    # The champion first: the first reason is the one that a line of the history has room for.
    if duel.champion_digest is not None:
        yield _Finding(_holds_against_champion(duel, gate), is_doubt=duel.against_champion["kid"].low <= 0)
    against_base = duel.against_base["kid"]
    yield _Finding(_beats_base(duel, gate), is_doubt=against_base.low <= -gate.min_improvement)
    yield from _limits(duel, gate)


def _findings_on_few_images(duel: Duel, gate: GateConfig) -> Iterator[_Finding]:
    yield _Finding(_few_images(duel), is_doubt=True)
    yield from _limits(duel, gate, beyond_doubt=True)


def _few_images(duel: Duel) -> GateCheck:
    rivals = {"base": "the base model", "champion": "the champion"}
    scores = {name: METRICS["kid"].number(duel.scores[name].metrics["kid"].value) for name in duel.contestants}
    others = " and ".join(f"{scores[name]} of {rival}" for name, rival in rivals.items() if name in scores)
    count = len(duel.samples)
    images = f"{count} held-out images are" if count > 1 else f"{count} held-out image is"
    reason = (
        f"{images} too few for an interval of KID, so KID decides nothing. Measured without one: KID "
        f"{scores['candidate']} against {others}."
    )
    return GateCheck(name=TOO_FEW, passed=False, reason=reason)


def _limits(duel: Duel, gate: GateConfig, *, beyond_doubt: bool = False) -> Iterator[_Finding]:
    """Check the limits. With `beyond_doubt`, only a limit that no end of the interval keeps counts as broken."""
    for metric, limit in (
        ("denoising_psnr", gate.max_denoising_psnr_drop_db),
        ("denoising_ssim", gate.max_denoising_ssim_drop),
    ):
        if limit is not None:
            yield _drops_little(duel, metric, limit, beyond_doubt=beyond_doubt)
    if gate.max_time_factor is not None:
        yield _is_fast_enough(duel, gate.max_time_factor)
    if gate.max_excess_copies is not None:
        yield _copies_little(duel, gate.max_excess_copies, beyond_doubt=beyond_doubt)


def _beats_base(duel: Duel, gate: GateConfig) -> GateCheck:
    difference = duel.against_base["kid"]
    needed = 0.0 - gate.min_improvement
    passed = difference.high < needed
    base, candidate = (duel.scores[name].metrics["kid"].value for name in ("base", "candidate"))
    found = f"KID {candidate:.4f} against the base model's {base:.4f}, difference {_interval(difference)}"
    if passed:
        reason = f"Clearly better than the base model: {found}."
    else:
        reason = f"Not clearly better than the base model: {found}; the upper end must be below {needed:g}."
    return GateCheck(name=BASE, passed=passed, reason=reason)


def _holds_against_champion(duel: Duel, gate: GateConfig) -> GateCheck:
    difference = duel.against_champion["kid"]
    base, champion, candidate = (duel.scores[name].metrics["kid"].value for name in CONTESTANTS)
    found = f"KID {candidate:.4f} against the champion's {champion:.4f}, difference {_interval(difference)}"
    if difference.high < 0:
        return GateCheck(name="against the champion", passed=True, reason=f"Clearly better than the champion: {found}.")
    if gate.rule == "better":
        reason = f"Not clearly better than the champion: {found}; the upper end must be below 0."
        return GateCheck(name="against the champion", passed=False, reason=reason)
    snapshots = {duel.candidate_snapshot_digest, duel.champion_snapshot_digest}
    has_unknown_images = UNKNOWN_SNAPSHOT in snapshots  # adopted from a file, so it may have learnt from other images
    if len(snapshots) == 1 and not has_unknown_images:
        reason = (
            f"Trained on the same images as the champion, so it must be clearly better, and is not: {found}; "
            "the upper end must be below 0."
        )
        return GateCheck(name="against the champion", passed=False, reason=reason)
    margin = gate.max_lost_gain * max(base - champion, 0)
    passed = difference.value <= 0 and difference.high <= margin
    if passed:
        reason = (
            f"{'May have learnt' if has_unknown_images else 'Learnt'} from other images than the champion and is not "
            f"worse: {found}; up to {margin:.4f} is allowed. "
            "Not worse is not better: an equally good candidate passes about half of its duels."
        )
    else:
        verdict = "Worse" if difference.low > 0 else "Perhaps worse"
        reason = (
            f"{verdict} than the champion: {found}. It must be at most 0 on average with an upper end of at most "
            f"{margin:.4f}, {gate.max_lost_gain:.0%} of the champion's gain over the base."
        )
        if difference.low <= 0:
            reason += (
                " An equally good candidate fails about half of its duels; more held-out images narrow the interval."
            )
    return GateCheck(name="against the champion", passed=passed, reason=reason)


def _drops_little(duel: Duel, metric: str, limit: float, *, beyond_doubt: bool) -> _Finding:
    rival, differences = ("base model", duel.against_base)
    if duel.champion_digest is not None:
        rival, differences = ("champion", duel.against_champion)
    difference, shape = differences[metric], METRICS[metric]
    is_doubt = difference.low < -limit <= difference.high
    passed = difference.low >= -limit or (beyond_doubt and is_doubt)
    found = f"{shape.label} against the {rival}: {shape.with_unit(_interval(difference, shape))}"
    verdict = "perhaps beyond" if is_doubt else "within" if passed else "too far below"
    allowed = shape.with_unit(f"{limit:g}")
    reason = f"{found}, {verdict} the allowed drop of {allowed}."
    return _Finding(GateCheck(name=shape.label, passed=passed, reason=reason), is_doubt)


def _is_fast_enough(duel: Duel, limit: float) -> _Finding:
    base, candidate = (duel.scores[name].metrics["seconds_per_image"] for name in ("base", "candidate"))
    factor = candidate.value / base.value if base.value > 0 else math.inf
    passed = factor <= limit
    # One batch is one measurement, and another program may have slowed it.
    is_one_batch = len(duel.samples) <= duel.settings.get("batch_size", 0)
    is_doubt = not passed and (is_one_batch or candidate.low <= limit * base.high)
    verdict = f"{'up to' if passed else 'only'} {limit:g} times is allowed"
    if is_doubt:
        verdict += ", but another program may have slowed it"
    reason = f"{candidate.value:.3f} s per image, {factor:.2f} times the base model's; {verdict}."
    return _Finding(GateCheck(name="time per image", passed=passed, reason=reason), is_doubt)


def _copies_little(duel: Duel, limit: float, *, beyond_doubt: bool) -> _Finding:
    metrics = duel.scores["candidate"].metrics
    copied, excess = metrics["copied_share"], metrics["excess_copies"]
    passed = (excess.low if beyond_doubt else excess.value) <= limit
    is_doubt = excess.low <= limit
    if excess.value > limit and is_doubt:
        verdict = f"More than the {limit:.1%} that is allowed, which may be chance with so few images."
    else:
        verdict = f"{'Up to' if passed else 'Only'} {limit:.1%} more is allowed."
    reason = (
        f"{_share(copied)} of the samples are nearly a training image; of real images it never saw, "
        f"{duel.held_out_copied_share:.1%} are. {verdict}"
    )
    return _Finding(GateCheck(name=COPIES, passed=passed, reason=reason), is_doubt)


def _share(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"


def _interval(difference: Estimate, metric: Metric = METRICS["kid"]) -> str:
    value, low, high = (metric.number(end, "+") for end in (difference.value, difference.low, difference.high))
    return f"{value} [{low}, {high}]"
