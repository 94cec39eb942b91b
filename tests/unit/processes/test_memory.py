from __future__ import annotations

import subprocess
import sys

import pytest

from sdlora.processes import memory as freed_memory
from sdlora.processes.memory import freed_memory_kept

# In a process of its own: what other tests left in the heap must not stand in for what is asked.
_TOUCH = """
import resource
import torch
from contextlib import nullcontext
from sdlora.processes.memory import freed_memory_kept

def faults_of_a_step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    del [torch.ones(2**19) for _ in range(20)][:]  # 20 times 2 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def pages_held():
    return int(open("/proc/self/statm").read().split()[1])

with freed_memory_kept():
    faults_of_a_step(), faults_of_a_step()
    kept, held = faults_of_a_step(), pages_held()
print(kept, held - pages_held())
"""

# Blocks of the C library itself: what PyTorch allocates between them would keep the end of the heap where it is.
_TOUCH_AFTERWARDS = """
import ctypes
import resource
from sdlora.processes.memory import freed_memory_kept

library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]

def faults_of_a_step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [library.malloc(2**21) for _ in range(20)]
    for block in blocks:
        ctypes.memset(block, 1, 2**21)
    for block in blocks:
        library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with freed_memory_kept():
    faults_of_a_step()
faults_of_a_step()
print(faults_of_a_step())
"""


@pytest.mark.skipif(freed_memory._glibc() is None, reason="needs glibc")
def test_what_a_step_frees_is_there_for_the_next_and_given_back_afterwards():
    done = subprocess.run([sys.executable, "-c", _TOUCH], check=True, capture_output=True, text=True)
    faults, given_back = map(int, done.stdout.split())
    assert faults < 5_000  # 40 MiB have 10,240 pages
    assert given_back > 5_000


@pytest.mark.skipif(freed_memory._glibc() is None, reason="needs glibc")
def test_later_work_finds_the_thresholds_that_glibc_would_have_come_to():
    done = subprocess.run([sys.executable, "-c", _TOUCH_AFTERWARDS], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 100  # 40 MiB have 10,240 pages


def test_without_glibc_nothing_is_done(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with freed_memory_kept():
        assert freed_memory._glibc() is None
