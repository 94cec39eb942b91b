from __future__ import annotations

import io
import logging

from rich.console import Console

from deployments.cli.run_output import duel_table
from deployments.cli.terminal import MIN_BF16_SPEEDUP, Stages, clock
from sdlora.models import precision
from tests.unit.evaluation.made_duel import made_duel


def test_without_a_terminal_a_finished_stage_is_one_line():
    output = io.StringIO()
    with Stages(Console(file=output, width=80)) as stages:
        for done in range(11):
            stages.on_progress("check images", done, 10)
        stages.on_progress("check images", 10, 10)
        stages.on_metrics(10, {"loss": 0.5})
    assert output.getvalue() == "check images: 10/10, 0:00\n"


def test_what_the_library_warns_of_is_shown_and_nothing_else_of_its_log():
    output = io.StringIO()
    with Stages(Console(file=output, width=80)):
        logging.getLogger("sdlora.training").warning("2 of 10 images cannot be [used]")
        logging.getLogger("sdlora.training").info("a detail")
        logging.getLogger("another.library").warning("a remark")
    logging.getLogger("sdlora.training").warning("later")
    assert output.getvalue() == "Note: 2 of 10 images cannot be [used]\n"


def test_on_a_terminal_every_stage_keeps_its_bar_and_the_loss_is_shown():
    output = io.StringIO()
    with Stages(Console(file=output, width=120, force_terminal=True)) as stages:
        stages.on_progress("encode images", 5, 5)
        stages.on_progress("train", 30, 100)
        stages.on_metrics(30, {"loss": 0.125})
    shown = output.getvalue()
    assert "encode images" in shown
    assert "30/100" in shown
    assert "loss 0.125" in shown


def test_the_precision_that_suits_the_processor_is_told():
    output = io.StringIO()
    with Stages(Console(file=output, width=200)) as stages:
        stages.on_metrics(0, {"bf16_speedup": 1.756})
        stages.on_metrics(0, {"bf16_speedup": 0.6})
    fast, slow = output.getvalue().splitlines()
    assert fast == "This processor computes in bf16 1.8 times as fast as in fp32, so training uses bf16."
    assert slow.startswith("This processor gains nothing from bf16, so training uses fp32")
    assert MIN_BF16_SPEEDUP == precision.MIN_BF16_SPEEDUP


def test_seconds_read_as_a_clock():
    assert [clock(seconds) for seconds in (0, 59.6, 75, 3600)] == ["0:00", "1:00", "1:15", "60:00"]


def test_intervals_are_no_markup_to_the_terminal():
    output = io.StringIO()
    Console(file=output, width=150).print(duel_table(made_duel()))
    assert "0.2714 [0.2394, 0.3034]" in output.getvalue()


def test_the_time_left_of_a_continued_stage_counts_only_what_was_done_now(monkeypatch):
    clock_readings = iter([0.0, 30.0])
    monkeypatch.setattr("deployments.cli.terminal.time.monotonic", lambda: next(clock_readings))
    output = io.StringIO()
    stages = Stages(Console(file=output, width=80))
    stages.on_progress("train", 200, 600)
    stages.on_progress("train", 300, 600)  # 100 steps in 30 s: 300 more take 90 s
    assert output.getvalue() == "train: 300/600, 1:30 left\n"


def test_the_time_left_does_not_count_what_the_first_steps_do_once(monkeypatch):
    clock_readings = iter([0.0, 10.0, 30.0])
    monkeypatch.setattr("deployments.cli.terminal.time.monotonic", lambda: next(clock_readings))
    output = io.StringIO()
    stages = Stages(Console(file=output, width=80))
    stages.on_progress("train", 0, 600)
    stages.on_progress("train", 10, 600)  # kernels are chosen: a second a step
    stages.on_progress("train", 110, 600)  # 100 steps in 20 s: 490 more take 98 s
    assert output.getvalue() == "train: 110/600, 1:38 left\n"
