"""`sdlora up` and its ports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deployments.environment import DEMO_CONFIG, PROJECT
from deployments.servers.running import stack_lives
from deployments.servers.services import free_port, listen_at
from deployments.up import LocalStack
from sdlora.core.errors import ConfigError


def test_prefect_is_not_imported_before_its_variables_are_set():
    look = "import sys, deployments.up; print([name for name in sys.modules if name.split('.')[0] == 'prefect'])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout == "[]\n", "Prefect would use its own address and start a second server on the same database"


def test_a_receivers_port_that_is_taken_is_an_error_that_names_the_option(tmp_path):
    said: list[str] = []
    with listen_at(0, "other program", "") as taken:
        port = taken.getsockname()[1]
        stack = LocalStack(tmp_path, DEMO_CONFIG, free_port(), free_port(), said.append, False, port)
        with pytest.raises(ConfigError, match=rf"Port {port} for the receiver is in use.*--receiver-port {port + 1}"):
            stack.run()
    assert said == [] and stack.services == [] and not stack_lives(tmp_path)
