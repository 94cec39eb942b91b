"""State folder of a chain: its settings, its runs, and what came of them."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.crashes.marks import PATIENCE_SECONDS, Marks
from sdlora.core.files import file_sha256
from tests.false_clock import FalseClock
from tests.outages import Forwarder

PROJECT = Path(__file__).parents[2]
STYLE: dict[str, Any] = {
    "name": "shapes",
    "data": {"held_out_fraction": 0.4},
    "lora": {"rank": 2, "targets": "attention"},
    "training": {
        "steps": 60,
        "batch_size": 4,
        "log_every_steps": 2,
        "validation_every_steps": 30,
        "precision": "fp32",
        "checkpoint_every_steps": 10,
    },
    "evaluation": {
        "max_prompts": 8,
        "min_prompts": 2,
        "steps": 2,
        "denoising_steps": 2,
        "resamples": 100,
        "fid_resamples": 100,
        "shown_prompts": 3,
    },
}


@dataclass
class Setting:
    """State folder of a chain, with the servers that its runs use."""

    folder: Path
    config: Path
    variables: dict[str, str]
    marks: Marks
    mlflow: Forwarder | None = None
    postgres: Forwarder | None = None
    prefect: Forwarder | None = None
    clock: FalseClock | None = None
    mlflow_server: subprocess.Popen[bytes] | None = None
    restart_mlflow: Callable[[], None] = lambda: None
    strike_until: float = math.inf

    @property
    def disk(self) -> Path:
        """Folder of the state folder, on a file system of its own if the chain needs a small disk."""
        return self.folder / "disk"

    @property
    def home(self) -> Path:
        return self.disk / "home"

    @property
    def output(self) -> str:
        """What the runs wrote to their terminals."""
        return (self.folder / "output.txt").read_text()

    def start(self) -> subprocess.Popen[bytes]:
        """Start a run in a process group of its own."""
        command = [sys.executable, "-m", "deployments.cli", "run"]
        with (self.folder / "output.txt").open("ab") as output:
            return subprocess.Popen(
                [*command, "--home", str(self.home), "--config", str(self.config)],
                cwd=PROJECT,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=clean_environment() | self.variables | self.marks.variables,
            )

    def run_undisturbed(self) -> None:
        """Run once, and check that the run completes."""
        assert self.start().wait(PATIENCE_SECONDS) == 0, self.output


def verdict(setting: Setting) -> tuple[str, int, int]:
    """Return the adapter's digest, and the numbers of versions and of entries in the history."""
    (weights,) = setting.home.glob("runs/shapes/*/adapter/pytorch_lora_weights.safetensors")
    done = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "versions", "--json", "--home", str(setting.home)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
        env=clean_environment() | setting.variables,
    )
    versions = json.loads(done.stdout)["versions"]
    return file_sha256(weights), len(versions), sum(version["decided_at"] is not None for version in versions)


def clean_environment() -> dict[str, str]:
    """Return this process's variables without those that would name other servers."""
    prefixes = ("PREFECT_", "MLFLOW_", "SDLORA_")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
