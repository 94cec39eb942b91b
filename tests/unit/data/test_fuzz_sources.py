"""A few hostile inputs for each reader of sources, and those that once broke one.

`benchmarks/fuzz_sources.py` takes minutes of them.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.data.fuzzing import TARGETS, check, corpus


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_raises_only_its_own_errors_within_memory_and_time(name: str) -> None:
    @settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data: st.DataObject) -> None:
        check(TARGETS[name], data.draw(TARGETS[name].inputs))

    run()


@pytest.mark.parametrize(("name", "data"), [pytest.param(name, data, id=what) for name, what, data in corpus()])
def test_what_once_broke_a_reader_no_longer_does(name: str, data: bytes) -> None:
    check(TARGETS[name], data)
