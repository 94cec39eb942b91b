from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlora.records.metrics import Estimate
from sdlora.release.charts import interval_plot, loss_chart, smoothed, ticks
from sdlora.release.record import Curve


def test_ticks_are_round_numbers_around_the_range() -> None:
    assert ticks(0.0, 1.0) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(0.13, 0.47) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_enclose_any_range_with_few_lines(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert 2 <= len(found) <= 9
    slack = 1e-9 * max(1, abs(low), span)
    assert found[0] <= low + slack
    assert found[-1] >= low + span - slack


def test_a_running_mean_keeps_a_line_and_calms_noise() -> None:
    line = [(step, 2.0 * step) for step in range(100)]
    assert [loss for _, loss in smoothed(line)[10:90]] == pytest.approx([loss for _, loss in line[10:90]])
    noise = [(step, (-1.0) ** step) for step in range(200)]
    assert max(abs(loss) for _, loss in smoothed(noise)) < 0.25
    assert smoothed([(0, 1.0), (1, 2.0)]) == [(0, 1.0), (1, 2.0)]


def test_a_falling_loss_falls_in_the_chart() -> None:
    chart = loss_chart([Curve("a & b", [(step, 1.0 - step / 10) for step in range(10)])])
    assert chart is not None
    root = ET.fromstring(chart)  # well-formed, so the name was escaped
    (path,) = root.findall("path")
    heights = [float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", path.attrib["d"])]
    assert heights == sorted(heights)  # downwards on the screen
    assert len(heights) == 10
    assert path.findtext("title") == "a & b"


def test_losses_that_are_not_numbers_are_left_out() -> None:
    points = [(0, 1.0), (1, math.nan), (2, 0.5), (3, math.inf)]
    chart = loss_chart([Curve("loss", points)])
    assert chart is not None
    assert "nan" not in chart
    assert "inf" not in chart
    assert loss_chart([Curve("loss", [(0, math.nan), (1, 1.0)])]) is None
    assert loss_chart([Curve("loss", [(5, 1.0), (5, 2.0)])]) is None
    assert loss_chart([]) is None


def test_a_constant_loss_can_be_drawn() -> None:
    assert loss_chart([Curve("loss", [(0, 0.0), (1, 0.0)])]) is not None


def test_contestants_stand_on_one_scale() -> None:
    plot = interval_plot(
        {"base": Estimate(value=3.0, low=2.0, high=4.0), "candidate": Estimate(value=1.0, low=0.0, high=2.0)}
    )
    base, candidate = (float(circle.attrib["cx"]) for circle in ET.fromstring(plot).findall("circle"))
    assert candidate < base
    equal = interval_plot({"base": Estimate(value=1.0, low=1.0, high=1.0)})
    assert "nan" not in equal
