from __future__ import annotations

import gc
import sys

from sdlora.imports import garbage_left


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


def test_what_was_imported_is_never_looked_through_again(tmp_path, monkeypatch):
    (tmp_path / "module_with_a_list.py").write_text("held = [[] for _ in range(1000)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    gc.unfreeze()
    try:
        with garbage_left():
            held = [[] for _ in range(1000)]
        assert gc.get_freeze_count() == 0, "nothing was imported"
        with garbage_left():
            import module_with_a_list  # noqa: F401
        assert gc.get_freeze_count() > len(held)
    finally:
        gc.unfreeze()
        sys.modules.pop("module_with_a_list", None)
