from __future__ import annotations

import subprocess
import sys


def test_the_library_leaves_the_garbage_collector_of_its_caller_alone():
    code = """
import gc, sdlora
before = gc.get_threshold()
sdlora.LoRA.fine_tune
assert "torch" in __import__("sys").modules
assert gc.isenabled() and gc.get_threshold() == before and gc.get_freeze_count() == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
