"""A terminal run that is killed at one stage after the other ends with the adapter of an undisturbed one.

Kills while images are collected and cleaned, and while an adapter is trained, have tests of their own.
"""

from __future__ import annotations

import random
from pathlib import Path

from prefect.settings import PREFECT_API_URL

from benchmarks.crashes.chain import run_chain
from benchmarks.crashes.faults import faults
from benchmarks.crashes.marks import STAGES
from benchmarks.crashes.servers import setting_for
from benchmarks.crashes.setting import verdict

STRUCK = ["snapshot", "duel", "publish"]


def test_a_run_that_is_killed_at_three_stages_publishes_what_an_undisturbed_one_does(
    base_folder: Path, first_images: Path, tmp_path: Path
):
    fault = faults(0)["killed"]
    server = {"PREFECT_API_URL": PREFECT_API_URL.value()}  # that of the tests: none is started for each run
    with setting_for((), tmp_path / "calm", first_images, base_folder, None) as calm:
        calm.variables |= server
        calm.run_undisturbed()
        expected = verdict(calm)
    with setting_for((), tmp_path / "killed", first_images, base_folder, None) as setting:
        setting.variables |= server
        chain = run_chain(fault, setting, dict.fromkeys(STAGES, 0.2), random.Random(0), STRUCK)
        assert chain.problem is None, setting.output
        assert chain.rows == dict.fromkeys(STRUCK, "continues")
        assert verdict(setting) == expected
