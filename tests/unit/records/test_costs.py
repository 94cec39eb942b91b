import pytest

from sdlora.core.errors import TrainingError
from sdlora.records.costs import Costs


def test_what_an_earlier_version_measured_is_read_and_the_rest_is_0(tmp_path):
    (tmp_path / "costs.json").write_text('{"seconds": 2.5, "process_peak_bytes": 900}\n')
    assert Costs.load(tmp_path) == Costs(seconds=2.5, process_peak_bytes=900)


def test_a_run_that_was_not_measured_costs_nothing_that_is_known(tmp_path):
    assert Costs.load(tmp_path) == Costs()


@pytest.mark.parametrize("content", ["", "[1]", '{"seconds": "long"}', '{"hours": 1}'])
def test_a_file_that_holds_no_costs_is_refused_with_its_place_and_the_remedy(tmp_path, content):
    (tmp_path / "costs.json").write_text(content)
    with pytest.raises(TrainingError, match=r"costs\.json does not hold a training's costs .*Delete the run's folder"):
        Costs.load(tmp_path)
