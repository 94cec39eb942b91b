from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sdlora.processes import memory
from sdlora.processes.memory import (
    keep_freed_memory,
    return_freed_memory,
    thresholds_of_children,
    thresholds_of_servers,
)

# In a process of its own: what other tests left in the heap must not stand in for what is asked. The blocks are those
# of the C library itself: what PyTorch allocates between them would keep the end of the heap where it is.
_STEPS = """
import ctypes
import resource
import sys
from sdlora.processes.memory import keep_freed_memory, return_freed_memory

library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]

def faults_of_a_step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [library.malloc(2**21) for _ in range(60)]  # 120 MiB: more than glibc keeps by its own adjustment
    for block in blocks:
        ctypes.memset(block, 1, 2**21)
    for block in blocks:
        library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def pages_held():
    return int(open("/proc/self/statm").read().split()[1])

if "keep" in sys.argv:
    keep_freed_memory()
faults_of_a_step(), faults_of_a_step()
faults, held = faults_of_a_step(), pages_held()
return_freed_memory()
print(faults, held - pages_held())
"""
_PAGES = 60 * 2**21 // 4096

glibc_only = pytest.mark.skipif(memory._glibc() is None, reason="needs glibc")


def faults_and_returned_pages(*arguments, **variables):
    done = subprocess.run(
        [sys.executable, "-c", _STEPS, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | variables,
    )
    return map(int, done.stdout.split())


@glibc_only
@pytest.mark.parametrize(("arguments", "variables"), [(["keep"], {}), ([], thresholds_of_children())])
def test_what_a_step_frees_is_there_for_the_next_and_given_back_once_it_is_asked_for(arguments, variables):
    faults, returned = faults_and_returned_pages(*arguments, **variables)
    assert faults < _PAGES // 20
    assert returned > _PAGES // 2


@glibc_only
def test_a_server_gives_back_what_it_frees_although_its_parent_asked_to_keep_it():
    faults, _ = faults_and_returned_pages(**thresholds_of_children() | thresholds_of_servers())
    assert faults > _PAGES // 2


@glibc_only
def test_without_asking_for_it_a_process_pays_for_its_pages_at_every_step():
    """Should this fail one day, sdlora need not set the thresholds any more."""
    faults, _ = faults_and_returned_pages()
    assert faults > _PAGES // 2


def test_without_glibc_nothing_is_done(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    keep_freed_memory()
    return_freed_memory()
    assert memory._glibc() is None
