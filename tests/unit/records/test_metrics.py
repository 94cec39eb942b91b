from __future__ import annotations

from sdlora.records.metrics import METRICS, Estimate

KID, PSNR, TIME = METRICS["kid"], METRICS["denoising_psnr"], METRICS["seconds_per_image"]


def test_estimates_show_their_interval_only_where_one_was_measured():
    assert KID.format(Estimate(value=0.5, low=0.4, high=0.6)) == "0.5000 [0.4000, 0.6000]"
    assert TIME.format(Estimate(value=0.5, low=0.5, high=0.5)) == "0.500 s"
    assert KID.format(None) == "missing"


def test_the_unit_stands_once_before_the_interval_or_in_the_label_of_the_reader():
    estimate = Estimate(value=22.1, low=21.8, high=22.4)
    assert PSNR.format(estimate) == "22.10 dB [21.80, 22.40]"
    assert PSNR.format(estimate, unit=False) == "22.10 [21.80, 22.40]"
    assert PSNR.with_unit("1") == "1 dB"
    assert KID.with_unit("1") == "1"


def test_the_arrow_points_where_better_is():
    assert (KID.arrow, PSNR.arrow) == ("↓", "↑")


def test_a_difference_always_has_a_sign():
    assert [KID.number(value, "+") for value in (0.5, -0.5)] == ["+0.5000", "-0.5000"]
