from __future__ import annotations

import io
import json
import logging
from types import SimpleNamespace
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from deployments.cli.run_output import duel_table, release_object
from deployments.cli.stages import MIN_BF16_SPEEDUP, Stages, clock
from deployments.cli.terminal import TerminalConsole, plain, verbosity
from sdlora.models import precision
from tasks.results import Release, RunRef
from tests.unit.deployments.test_json_output import documented, shape, written
from tests.unit.evaluation.made_duel import made_duel


def test_without_a_terminal_a_finished_stage_is_one_line(monkeypatch):
    monkeypatch.setattr("deployments.cli.stages.time", SimpleNamespace(monotonic=lambda: 7.0))
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
    monkeypatch.setattr("deployments.cli.stages.time", SimpleNamespace(monotonic=lambda: next(clock_readings)))
    output = io.StringIO()
    stages = Stages(Console(file=output, width=80))
    stages.on_progress("train", 200, 600)
    stages.on_progress("train", 300, 600)  # 100 steps in 30 s: 300 more take 90 s
    assert output.getvalue() == "train: 300/600, 1:30 left\n"


def test_the_time_left_does_not_count_what_the_first_steps_do_once(monkeypatch):
    clock_readings = iter([0.0, 10.0, 30.0])
    monkeypatch.setattr("deployments.cli.stages.time", SimpleNamespace(monotonic=lambda: next(clock_readings)))
    output = io.StringIO()
    stages = Stages(Console(file=output, width=80))
    stages.on_progress("train", 0, 600)
    stages.on_progress("train", 10, 600)  # kernels are chosen: a second a step
    stages.on_progress("train", 110, 600)  # 100 steps in 20 s: 490 more take 98 s
    assert output.getvalue() == "train: 110/600, 1:38 left\n"


HOSTILE = "\x1b[2J\x1b]0;owned\x07 car\u202e\x9b[bold]"
SHOWN = r"\x1b[2J\x1b]0;owned\x07 car\u202e\x9b[bold]"


def printed(*objects: object, **options: object) -> str:
    output = io.StringIO()
    terminal = TerminalConsole(file=output, force_terminal=True, color_system=None, highlight=False, width=200)
    terminal.print(*objects, **options)
    return output.getvalue()


def test_foreign_text_reaches_the_terminal_escaped_however_it_is_printed():
    assert printed(escape(HOSTILE)) == SHOWN + "\n"
    assert printed(HOSTILE, markup=False) == SHOWN + "\n"
    assert printed(plain(HOSTILE)) == SHOWN + "\n"
    table = Table(box=None, show_header=False, padding=0)
    table.add_row(escape(HOSTILE), plain("next"))
    assert printed(table) == f"{SHOWN}next\n"
    assert "\x1b" not in printed(Text(HOSTILE))  # a Text that did not come from `plain`


def test_styles_still_reach_the_terminal():
    output = io.StringIO()
    TerminalConsole(file=output, force_terminal=True, color_system="standard").print("[bold]x[/]")
    assert output.getvalue() == "\x1b[1mx\x1b[0m\n"


def test_stage_names_and_log_lines_pass_the_filter():
    for is_terminal in (True, False):
        output = io.StringIO()
        terminal = TerminalConsole(file=output, force_terminal=is_terminal, color_system=None, width=120)
        with Stages(terminal) as stages:
            stages.on_progress(HOSTILE, 1, 1)
            logging.getLogger("sdlora.data").warning("skipped %s", HOSTILE)
        assert "owned" in output.getvalue()
        assert "\x1b]0" not in output.getvalue() and "\u202e" not in output.getvalue()


def test_nothing_is_cut_where_no_terminal_is(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    output = io.StringIO()
    table = Table(box=None, show_header=False)
    table.add_row("high-contrast-" * 20, "caption " * 50)
    TerminalConsole(file=output).print(table)
    assert "high-contrast-" * 20 in output.getvalue().splitlines()[0]
    monkeypatch.setenv("COLUMNS", "60")
    assert TerminalConsole(file=output).width == 60


def test_quiet_leaves_warnings_and_verbose_adds_log_lines(monkeypatch):
    def said() -> str:
        output = io.StringIO()
        with Stages(Console(file=output, width=80)) as stages:
            stages.on_progress("check images", 10, 10)
            stages.on_metrics(1, {"validation_loss": 0.5})
            logging.getLogger("sdlora.training").warning("a damaged checkpoint")
            logging.getLogger("sdlora.training").info("a detail")
        return output.getvalue()

    monkeypatch.setattr(verbosity, "quiet", True)
    assert said() == "Note: a damaged checkpoint\n"
    monkeypatch.setattr(verbosity, "quiet", False)
    monkeypatch.setattr(verbosity, "verbose", True)
    assert "a detail\n" in said() and "check images: 10/10" in said()
    assert not logging.getLogger("sdlora").handlers


def test_the_object_of_a_run_has_the_scores_of_its_duel(tmp_path):
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "duel.json").write_text(made_duel().model_dump_json())
    run = RunRef(digest="5" * 64, folder=tmp_path)
    release = Release(name="icons", version=2, new=True, promoted=False, reasons=("no gain",), run=run)
    result = json.loads(json.dumps(TypeAdapter(Any).dump_python(release_object(release, 1.5), mode="json")))
    assert written(shape(result)) == documented("sdlora run")
    assert result["scores"]["candidate"]["kid"]["value"] == made_duel().scores["candidate"].metrics["kid"].value
    (tmp_path / "evaluation" / "duel.json").unlink()
    assert release_object(release, 1.5)["scores"] is None
