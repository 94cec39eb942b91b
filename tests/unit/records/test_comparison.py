import json

import pytest

from sdlora.records.comparison import Comparison, load_comparison
from sdlora.records.costs import Costs

COSTS = {
    "steps": 6,
    "trained_parameters": 99,
    "seconds": 2.5,
    "processor_seconds": 5.25,
    "process_peak_bytes": 900,
    "training_peak_bytes": 100,
    "file_bytes": 77,
}
FILE = {
    "inputs_digest": "1",
    "base_digest": "2",
    "snapshot_digest": "3",
    "budget": "six steps",
    "prompts": 8,
    "neutral_prompts": 2,
    "contenders": [{"name": "lora", **COSTS, "metrics": {"kid": {"value": 0.5, "low": 0.4, "high": 0.6}}}],
    "differences": {},
    "against_first": {},
}


def test_a_comparison_is_read_and_written_as_files_have_always_had_it(tmp_path):
    text = json.dumps(FILE, indent=1)
    (tmp_path / "comparison.json").write_text(text)
    comparison = load_comparison(tmp_path)
    (lora,) = comparison.contestants
    assert lora.costs == Costs.model_validate(COSTS)
    assert json.dumps(comparison.model_dump(mode="json"), indent=1) == text
    assert Comparison.model_validate_json(comparison.model_dump_json()) == comparison


def test_what_no_contestant_has_is_refused():
    with pytest.raises(ValueError, match=r"hours"):
        Comparison.model_validate({**FILE, "contenders": [{**FILE["contenders"][0], "hours": 1}]})
