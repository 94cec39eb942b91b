"""Distribution of the tests over pytest's processes: which belong together, and which begin first.

A file is run by one process, since its tests share fixtures. All tests of the running `sdlora up` are run by the same
process, so that it is started once. A long file that began last would leave the other cores idle.
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadGroupScheduling

STACK = "stack"
"""Group of the tests that use the fixture `running_stack`."""
HEAVY = (
    STACK,
    "tests/integration/test_outages.py",
    "tests/integration/test_soak.py",
    "tests/integration/test_crashes.py",
    "tests/integration/test_demo.py",
    "tests/integration/test_styles.py",
    "tests/integration/test_promotion.py",
    "tests/integration/test_compare.py",
    "tests/integration/test_moved_home.py",
    "tests/integration/test_later_duel.py",
    "tests/integration/test_pages.py",
    "tests/integration/test_retention.py",
    "tests/integration/test_adopt.py",
    "tests/integration/test_export.py",
    "tests/unit/release/test_compatibility.py",
)
"""Group and files that take longest, longest first; `pytest --durations=0` has the times."""


class FilesAndGroups(LoadGroupScheduling):
    """Scheduler that gives a process whole groups, and whole files of tests without a group."""

    def _split_scope(self, nodeid: str) -> str:
        scope = super()._split_scope(nodeid)
        return nodeid.partition("::")[0] if scope == nodeid else scope


def distribute(items: list[pytest.Item]) -> None:
    """Mark the files that use the running stack as one group, and sort the heaviest groups and files to the front."""
    of_stack = {file_of(item) for item in items if "running_stack" in getattr(item, "fixturenames", ())}
    for item in items:
        if file_of(item) in of_stack:
            item.add_marker(pytest.mark.xdist_group(STACK))
    order = {name: number for number, name in enumerate(HEAVY)}
    items.sort(key=lambda item: order.get(STACK if file_of(item) in of_stack else file_of(item), len(order)))


def file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]
