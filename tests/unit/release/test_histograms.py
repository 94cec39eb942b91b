from __future__ import annotations

import pytest

from sdlora.release.histograms import bar_chart, binned, column_chart, short


def test_values_fall_into_the_bins_that_begin_at_their_edges():
    assert binned({0: 1, 9: 2, 10: 4, 19: 8, 20: 16, 99: 32}, (10, 20)) == [3, 12, 48]


def test_columns_are_as_high_as_their_counts_and_the_smallest_is_still_seen():
    heights = [float(part.split('"')[0]) for part in column_chart("t", "abc", [1000, 500, 1]).split(' height="')[1:]]
    assert heights[0] == pytest.approx(2 * heights[1])
    assert heights[2] >= 1.5


def test_an_empty_bin_has_a_label_and_no_column():
    chart = column_chart("t", ["none", "some"], [0, 3])
    assert chart.count("<rect") == 1
    assert ">none</text>" in chart


def test_names_from_outside_are_escaped():
    assert "<b>" not in bar_chart("<b>", {"<b>": 1}) + column_chart("<b>", ["<b>"], [1])


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (999, "999"), (1234, "1.2k"), (45_678, "46k"), (10**7, "10M")])
def test_counts_are_shortened_to_four_characters(count, text):
    assert short(count) == text
