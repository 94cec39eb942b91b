from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from sdlora.core.refs import UNKNOWN_SNAPSHOT
from sdlora.evaluation.config import GateConfig
from sdlora.evaluation.gate import decide
from sdlora.records.decision import Decision
from sdlora.records.duel import Duel
from sdlora.records.metrics import Estimate
from tests.unit.evaluation.made_duel import BASE, CANDIDATE, CHAMPION, around, made_duel


def failed(decision: Decision) -> list[str]:
    return [check.name for check in decision.checks if not check.passed]


def test_a_first_candidate_that_beats_the_base_is_promoted_with_every_reason() -> None:
    decision = decide(made_duel(champion=None, reach=0.01), GateConfig())
    assert decision.promote
    assert len(decision.reasons) == len(decision.checks) == 5
    assert decision.reasons[0].startswith(
        "Clearly better than the base model: KID 0.2714 against the base model's 0.6912"
    )


def test_a_candidate_within_the_noise_of_the_base_is_not_promoted() -> None:
    duel = made_duel(candidate=CANDIDATE | {"kid": around(0.685, 0.03)}, champion=None, reach=0.01)
    decision = decide(duel, GateConfig())
    assert failed(decision) == ["better than the base"]
    reason, remedy = decision.reasons
    assert remedy.startswith("What helps: more images, because 12 held-out ones")
    assert reason == (
        "Not clearly better than the base model: KID 0.6850 against the base model's 0.6912, "
        "difference -0.0062 [-0.0162, +0.0038]; the upper end must be below 0."
    )


def test_the_improvement_over_the_base_can_be_asked_to_be_large() -> None:
    duel = made_duel(champion=None, reach=0.01)  # 0.42 better, at least 0.41
    assert decide(duel, GateConfig(min_improvement=0.40)).promote
    assert not decide(duel, GateConfig(min_improvement=0.415)).promote


@pytest.mark.parametrize("rule", ["better", "not_worse"])
def test_a_clearly_better_candidate_beats_the_champion_by_either_rule(rule: str) -> None:
    assert decide(made_duel(reach=0.01), GateConfig(rule=rule)).promote


# The champion's gain over the base is 0.6912 - 0.3391 = 0.3521; a fifth of it, 0.0704, may be lost to doubt.
@pytest.mark.parametrize(
    ("kid", "reach", "promoted"),
    [
        (0.335, 0.05, True),  # at least as good on average, at worst 0.046 worse
        (0.335, 0.08, False),  # at worst 0.076 worse
        (0.345, 0.02, False),  # worse on average, however little
    ],
)
def test_new_images_may_replace_a_champion_by_one_that_is_not_worse(kid: float, reach: float, promoted: bool) -> None:
    duel = made_duel(candidate=CANDIDATE | {"kid": around(kid, 0.03)}, reach=reach)
    loose = {"max_denoising_psnr_drop_db": None, "max_denoising_ssim_drop": None}
    decision = decide(duel, GateConfig(**loose))
    assert decision.promote is promoted
    assert failed(decision) == ([] if promoted else ["against the champion"])
    assert not decide(duel, GateConfig(rule="better", **loose)).promote


def test_the_same_images_must_give_a_clearly_better_adapter() -> None:
    duel = made_duel(candidate=CANDIDATE | {"kid": around(0.335, 0.03)}, reach=0.01)
    again = duel.model_copy(update={"champion_snapshot_digest": duel.candidate_snapshot_digest})
    assert decide(duel, GateConfig()).promote
    decision = decide(again, GateConfig())
    assert not decision.promote
    assert decision.reasons[0].startswith("Trained on the same images as the champion")


@pytest.mark.parametrize(
    ("scores", "helps"),
    [
        ({"denoising_psnr": around(BASE["denoising_psnr"].value - 3, 0.1)}, "lower training.steps"),
        ({"excess_copies": around(0.8, 0.1)}, "the adapter draws copies"),
        ({"kid": around(0.9, 0.03)}, "raise training.steps"),
    ],
)
def test_a_refused_candidate_is_told_which_setting_helps(scores: dict[str, Estimate], helps: str) -> None:
    duel = made_duel(candidate=CANDIDATE | scores, champion=None, reach=0.01)
    decision = decide(duel, GateConfig())
    assert decision.answer == "worse" and helps in decision.reasons[-1]
    assert sum(reason.startswith("What helps:") for reason in decision.reasons) == 1
    adopted = decide(duel.model_copy(update={"candidate_snapshot_digest": UNKNOWN_SNAPSHOT}), GateConfig())
    assert len(adopted.reasons) == len(failed(adopted))  # its training is not ours


@pytest.mark.parametrize("unknown", [("candidate",), ("champion",), ("candidate", "champion")])
def test_images_of_an_adapter_from_a_file_count_as_other_images(unknown: tuple[str, ...]) -> None:
    known = {f"{name}_snapshot_digest": "5" * 64 for name in ("candidate", "champion")}
    duel = made_duel(candidate=CANDIDATE | {"kid": around(0.335, 0.03)}, reach=0.015).model_copy(update=known)
    assert not decide(duel, GateConfig()).promote  # equal images: it would have to be clearly better
    adopted = duel.model_copy(update={f"{name}_snapshot_digest": UNKNOWN_SNAPSHOT for name in unknown})
    decision = decide(adopted, GateConfig())
    assert decision.promote, decision.reasons
    assert decision.reasons[0].startswith("May have learnt from other images than the champion and is not worse: KID")


@pytest.mark.parametrize(
    ("metric", "value", "check"),
    [
        ("denoising_psnr", 19.6, "Denoising PSNR"),
        ("denoising_ssim", 0.83, "Denoising SSIM"),
        ("seconds_per_image", 0.5, "time per image"),
        ("excess_copies", 0.2, "near copies"),
    ],
)
def test_a_limit_that_is_passed_stops_the_promotion(metric: str, value: float, check: str) -> None:
    duel = made_duel(candidate=CANDIDATE | {metric: around(value, 0.0)}, reach=0.01)
    assert failed(decide(duel, GateConfig())) == [check]


def test_denoising_is_held_against_the_base_while_there_is_no_champion() -> None:
    poor = CANDIDATE | {"denoising_psnr": around(BASE["denoising_psnr"].value - 1, 0.1)}
    decision = decide(made_duel(candidate=poor, champion=None, reach=0.01), GateConfig())
    assert failed(decision) == ["Denoising PSNR"]
    assert "against the base model: -1.00" in decision.reasons[0]


@pytest.mark.parametrize("metric", ["kid", "fid", "denoising_psnr", "seconds_per_image", "excess_copies"])
def test_a_metric_that_is_absent_or_not_a_number_fails_the_gate(metric: str) -> None:
    absent = {name: estimate for name, estimate in CANDIDATE.items() if name != metric}
    not_a_number = CANDIDATE | {metric: Estimate(value=float("nan"), low=0.0, high=0.0)}
    no_number = ", it is not a number or has no interval, as happens with too few held-out images"
    for scores, why in ((absent, ""), (not_a_number, no_number)):
        decision = decide(made_duel(candidate=scores, reach=0.01), GateConfig())
        assert not decision.promote
        assert f"Missing metric {metric} (candidate){why}: nothing is promoted" in decision.reasons[0]


def test_a_metric_missing_from_the_champion_fails_the_gate_too() -> None:
    champion = {name: estimate for name, estimate in CHAMPION.items() if name != "kid"}
    decision = decide(made_duel(champion=champion, reach=0.01), GateConfig())
    assert not decision.promote
    assert decision.reasons[0].startswith("Missing metric kid (champion)")


def test_a_limit_that_is_switched_off_asks_for_no_metric() -> None:
    scores = {name: estimate for name, estimate in CANDIDATE.items() if name != "excess_copies"}
    duel = made_duel(candidate=scores, reach=0.01)
    assert decide(duel, GateConfig(max_excess_copies=None)).promote


def test_required_metrics_with_a_misspelt_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="required_metrics: \\['kidd'\\] are not metrics"):
        GateConfig(required_metrics=("kid", "kidd"))


def test_a_decision_is_bound_to_the_evidence_it_was_made_on() -> None:
    duel = made_duel(reach=0.01)
    decision = decide(duel, GateConfig())
    assert decision.duel_digest == duel.digest()
    assert decision.duel_digest != made_duel(reach=0.011).digest()
    assert (decision.candidate_digest, decision.champion_digest) == ("c" * 64, "a" * 64)


def test_a_duel_survives_the_way_through_json_even_with_a_nan() -> None:
    for scores in (CANDIDATE, CANDIDATE | {"fid": Estimate(value=float("nan"), low=float("-inf"), high=float("inf"))}):
        duel = made_duel(candidate=scores)
        again = Duel.model_validate(json.loads(json.dumps(duel.model_dump(mode="json"))))
        assert again.digest() == duel.digest()
        assert repr(again) == repr(duel)
