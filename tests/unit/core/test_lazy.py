from __future__ import annotations

import gc
import sys

import pytest

from sdlora.core import lazy as imports
from sdlora.core.lazy import garbage_left


def test_cycles_are_not_looked_for_while_libraries_are_imported_and_are_again_afterwards():
    assert gc.isenabled()
    with garbage_left():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_who_has_turned_the_collector_off_keeps_it_off():
    gc.disable()
    try:
        with garbage_left():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(("large", "frozen"), [(1, True), (2, False)])
def test_a_large_import_alone_is_never_looked_through_again(large, frozen, tmp_path, monkeypatch):
    (tmp_path / "module_with_lists.py").write_text("held = [[] for _ in range(1000)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(imports, "_LARGE_IMPORT", large)
    gc.unfreeze()
    try:
        with garbage_left():
            import module_with_lists
        assert (gc.get_freeze_count() > len(module_with_lists.held)) == frozen
    finally:
        gc.unfreeze()
        sys.modules.pop("module_with_lists", None)
