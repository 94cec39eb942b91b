"""Memory of processes that live for months."""

from __future__ import annotations

import gc
import weakref

from deployments.servers.garbage import collect_garbage_often, no_garbage_collection


class Node:
    """Object that refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def test_cycles_are_soon_collected_although_commands_collect_seldom():
    before = gc.get_threshold()
    try:
        gc.set_threshold(100_000)
        collect_garbage_often()
        cycle = weakref.ref(Node())
        kept = [[number] for number in range(2000)]
        assert cycle() is None
        assert gc.get_freeze_count() > len(kept)
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def test_what_is_imported_without_the_collector_is_never_searched_again():
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    try:
        with no_garbage_collection():
            assert not gc.isenabled()
            kept = [[number] for number in range(2000)]
        assert gc.isenabled() and gc.get_threshold() == before
        assert gc.get_freeze_count() >= frozen + len(kept)
    finally:
        gc.enable()
        gc.unfreeze()
