from __future__ import annotations

import gc

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
