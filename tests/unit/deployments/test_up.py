"""`sdlora up`: its ports, and its memory over months."""

from __future__ import annotations

import gc
import weakref

import pytest

from deployments.environment import DEMO_CONFIG
from deployments.servers.running import stack_lives
from deployments.servers.services import free_port, listen_at
from deployments.up import LocalStack, collect_garbage_often
from sdlora.core.errors import ConfigError


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


def test_a_receivers_port_that_is_taken_is_an_error_that_names_the_option(tmp_path):
    said: list[str] = []
    with listen_at(free_port(), "other program", "") as taken:
        port = taken.getsockname()[1]
        stack = LocalStack(tmp_path, DEMO_CONFIG, free_port(), free_port(), said.append, False, port)
        with pytest.raises(ConfigError, match=rf"Port {port} for the receiver is in use.*--receiver-port {port + 1}"):
            stack.run()
    assert said == [] and stack.services == [] and not stack_lives(tmp_path)
