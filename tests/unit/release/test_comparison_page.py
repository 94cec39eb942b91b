from __future__ import annotations

from sdlora.records.comparison import COMPARED, Comparison, ContestantResult
from sdlora.records.costs import Costs
from sdlora.records.metrics import Estimate
from sdlora.release.comparison_page import cost_rows, difference_rows, pair_titles, write_comparison_page


def found(value: float, half: float) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


def result(name: str, seconds: float) -> ContestantResult:
    costs = Costs(
        steps=10,
        trained_parameters=5,
        seconds=seconds,
        processor_seconds=2 * seconds,
        process_peak_bytes=900_000_000,
        training_peak_bytes=0,
        file_bytes=1000,
    )
    return ContestantResult(name=name, costs=costs, metrics={})


COMPARISON = Comparison(
    inputs_digest="1",
    base_digest="2",
    snapshot_digest="3",
    budget="ten steps",
    prompts=8,
    neutral_prompts=2,
    contestants=(result("base", 0), result("lora", 2), result("full", 4)),
    differences={
        "lora": {"kid": found(-0.4, 0.1), "drift": found(0.5, 0.1)},
        "full": {"kid": found(-0.5, 0.1), "denoising_psnr": found(float("nan"), 0.1)},
    },
    against_first={"full": {"kid": found(-0.1, 0.2)}},
)


def test_every_method_is_compared_with_the_base_and_the_later_ones_with_the_first():
    assert pair_titles(COMPARISON) == [
        "LoRA against the base",
        "regular fine-tuning against the base",
        "regular fine-tuning against LoRA",
    ]


def test_a_difference_counts_only_where_its_interval_excludes_zero():
    rows = dict(difference_rows(COMPARISON))
    assert rows[COMPARED["kid"].label] == ["-0.4000, better", "-0.5000, better", "-0.1000, no clear difference"]
    assert rows[COMPARED["drift"].label] == ["+0.500, worse", "missing", "missing"]
    assert rows[COMPARED["denoising_psnr"].label][1].endswith("not measured")


def test_costs_are_those_of_the_trained_ones_and_say_what_was_not_measured():
    rows = dict(cost_rows(COMPARISON))
    assert rows["Training time"] == ["–", "2.0 s", "4.0 s"]
    assert rows["Processor time"] == ["–", "4.0 s", "8.0 s"]
    assert rows["Peak memory"] == ["–", "900.0 MB", "900.0 MB"]
    assert rows["Peak memory beyond the libraries"] == ["–", "not measured", "not measured"]


def test_the_page_shows_all_tables_and_escapes_what_others_wrote(tmp_path):
    (tmp_path / "comparison.png").write_bytes(b"png")
    page = write_comparison_page(tmp_path, COMPARISON.model_copy(update={"budget": "<b>steps"}), "a-name").read_text()
    assert "<b>" not in page and "&lt;b&gt;steps" in page
    for shown in ("regular fine-tuning against LoRA", "-0.1000, no clear difference", "Processor time", "900.0 MB"):
        assert shown in page
