"""The gate's three answers, by property: what follows from the intervals, whatever the numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlora.evaluation.config import GateConfig
from sdlora.evaluation.gate import MIN_HELD_OUT_IMAGES, decide
from sdlora.records.duel import Duel
from sdlora.records.metrics import Estimate
from tests.unit.evaluation.made_duel import CANDIDATE, around, made_duel

MODES = ("automatic", "ask", "manual")
NO_LIMITS = {
    "max_denoising_psnr_drop_db": None,
    "max_denoising_ssim_drop": None,
    "max_time_factor": None,
    "max_excess_copies": None,
}
differences = st.floats(-0.5, 0.5).map(lambda value: round(value, 3))
reaches = st.floats(0, 0.3).map(lambda value: round(value, 3))


def duel_with(against_base: Estimate, against_champion: Estimate | None, held_out: int = 12) -> Duel:
    """A duel whose KID differences are given; all other scores are as of a good candidate."""
    duel = made_duel(champion=None, reach=0.01, held_out=held_out)
    if against_champion is not None:
        duel = made_duel(reach=0.01, held_out=held_out)
        duel = duel.model_copy(update={"against_champion": {**duel.against_champion, "kid": against_champion}})
    return duel.model_copy(update={"against_base": {**duel.against_base, "kid": against_base}})


@given(differences, reaches, st.none() | st.tuples(differences, reaches))
def test_the_answer_follows_from_the_intervals_and_the_mode_says_who_decides(
    value: float, reach: float, champion: tuple[float, float] | None
) -> None:
    base, rival = around(value, reach), around(*champion) if champion else None
    duel = duel_with(base, rival)
    decisions = {mode: decide(duel, GateConfig(mode=mode, **NO_LIMITS)) for mode in MODES}
    (answer,) = {decision.answer for decision in decisions.values()}
    passes_base = base.high < 0
    margin = 0.2 * (0.6912 - 0.3391)
    passes_rival = rival is None or rival.high < 0 or (rival.value <= 0 and rival.high <= margin)
    if passes_base and passes_rival:
        assert answer == "better"
    elif (not passes_base and base.low > 0) or (not passes_rival and rival.low > 0):
        assert answer == "worse"
    else:
        assert answer == "cannot tell"
        assert any(one and one.low <= 0 <= one.high for one in (base, rival))
    for mode, decision in decisions.items():
        assert decision.promote == (answer == "better" and mode != "manual")
        assert decision.waits == (mode == "manual" or (mode == "ask" and answer == "cannot tell"))
        assert not (decision.promote and decision.waits)
        assert {check.passed for check in decision.checks} == {check.passed for check in decisions["ask"].checks}


@given(
    differences, reaches, st.sampled_from(["denoising_psnr", "denoising_ssim", "seconds_per_image", "excess_copies"])
)
def test_a_broken_limit_is_worse_however_unclear_the_leading_interval(value: float, reach: float, metric: str) -> None:
    bad = {"denoising_psnr": 10.0, "denoising_ssim": 0.4, "seconds_per_image": 9.0, "excess_copies": 0.4}
    duel = made_duel(candidate=CANDIDATE | {metric: around(bad[metric], 0.0)}, champion=None, reach=0.01)
    duel = duel.model_copy(update={"against_base": {**duel.against_base, "kid": around(value, reach)}})
    decision = decide(duel, GateConfig(mode="ask"))
    assert (decision.answer, decision.promote, decision.waits) == ("worse", False, False)


@given(st.integers(2, 12), differences, reaches, st.sampled_from(MODES), st.booleans())
def test_with_few_held_out_images_a_person_decides_in_every_mode(
    held_out: int, value: float, reach: float, mode: str, degenerate: bool
) -> None:
    against_base = around(value, reach)
    if degenerate:
        against_base = Estimate(value=value, low=math.nan, high=math.nan)
    duel = duel_with(against_base, None, held_out)
    decision = decide(duel, GateConfig(mode=mode))
    if held_out < MIN_HELD_OUT_IMAGES or degenerate:
        assert (decision.answer, decision.promote, decision.waits) == ("cannot tell", False, True)
        reason, remedy = decision.reasons
        assert remedy.startswith("What helps: more images.") and "data.held_out_fraction" in remedy
        assert reason.startswith(
            f"{held_out} held-out images are too few for an interval of KID, so KID decides nothing."
        )
        assert "KID 0.2714 against 0.6912 of the base model." in reason
    else:
        assert "too few" not in "".join(decision.reasons)


def test_few_images_do_not_excuse_a_limit_that_is_broken_beyond_doubt() -> None:
    for metric, broken, doubtful in (
        ("denoising_psnr", around(-3.0, 1.0), around(-3.0, 2.6)),
        ("denoising_ssim", around(-0.2, 0.1), around(-0.2, 0.19)),
    ):
        duel = made_duel(champion=None, held_out=4)
        for difference, answer in ((broken, "worse"), (doubtful, "cannot tell")):
            changed = duel.model_copy(update={"against_base": {**duel.against_base, metric: difference}})
            decision = decide(changed, GateConfig())
            assert (decision.answer, decision.waits) == (answer, answer == "cannot tell")
    copies = CANDIDATE | {"excess_copies": Estimate(value=0.5, low=0.01, high=0.8)}
    decision = decide(made_duel(candidate=copies, champion=None, held_out=4), GateConfig())
    assert decision.answer == "cannot tell"
    assert "may be chance with so few images" in decision.checks[-1].reason
    copies = CANDIDATE | {"excess_copies": Estimate(value=1.0, low=0.4, high=1.0)}
    assert decide(made_duel(candidate=copies, champion=None, held_out=4), GateConfig()).answer == "worse"


@given(st.sampled_from(["denoising_psnr", "denoising_ssim"]), st.floats(0, 1), st.sampled_from([6, 12, 104]))
def test_a_limit_that_the_interval_contains_is_in_doubt_and_promotes_nobody(
    metric: str, place: float, held_out: int
) -> None:
    limit = {"denoising_psnr": 0.5, "denoising_ssim": 0.02}[metric]
    reach = limit / 2
    drop = around(-limit + (2 * place - 1) * 0.99 * reach, reach)
    duel = made_duel(champion=None, reach=0.01, held_out=held_out)
    duel = duel.model_copy(update={"against_base": {**duel.against_base, metric: drop}})
    decision = decide(duel, GateConfig(mode="ask"))
    assert (decision.answer, decision.promote, decision.waits) == ("cannot tell", False, True)
    assert "perhaps beyond the allowed drop" in decision.reasons[0]
    assert decision.reasons[-1].startswith("What helps: the adapter perhaps restores unseen images worse")


def test_one_near_copy_among_few_samples_is_in_doubt_and_many_are_not() -> None:
    def answer(excess: Estimate) -> str:
        duel = made_duel(candidate=CANDIDATE | {"excess_copies": excess}, champion=None, reach=0.01, held_out=6)
        return decide(duel, GateConfig()).answer

    assert answer(Estimate(value=1 / 6, low=-0.24, high=0.56)) == "cannot tell"
    assert answer(Estimate(value=5 / 6, low=0.2, high=0.97)) == "worse"


def test_a_slow_single_batch_is_in_doubt_and_many_slow_batches_are_not() -> None:
    slow = CANDIDATE | {"seconds_per_image": around(0.9, 0.01)}
    duel = made_duel(candidate=slow, champion=None, reach=0.01, held_out=6)
    assert decide(duel, GateConfig()).answer == "worse"
    one_batch = duel.model_copy(update={"settings": {**duel.settings, "batch_size": 16}})
    decision = decide(one_batch, GateConfig(mode="ask"))
    assert (decision.answer, decision.waits) == ("cannot tell", True)
    assert "another program may have slowed it" in decision.reasons[0]


@pytest.mark.parametrize("held_out", [4, 12])
def test_a_candidate_whose_pictures_have_no_score_is_worse_and_waits_for_nobody(held_out: int) -> None:
    nothing = Estimate(value=math.nan, low=math.nan, high=math.nan)
    duel = made_duel(candidate=CANDIDATE | {"kid": nothing}, champion=None, held_out=held_out)
    decision = decide(duel, GateConfig(mode="ask"))
    assert (decision.answer, decision.promote, decision.waits) == ("worse", False, False)


def test_the_digest_of_an_automatic_decision_is_that_of_its_checks_and_a_waiting_one_differs() -> None:
    duel = made_duel(reach=0.01)
    automatic, ask, manual = (decide(duel, GateConfig(mode=mode)) for mode in MODES)
    assert automatic.digest() == ask.digest() != manual.digest()
    fields = automatic.model_dump(mode="json", exclude={"answer", "waits"})
    from sdlora.core.files import json_digest

    assert automatic.digest() == json_digest(fields)
