"""Unit of systemd that starts `sdlora up` at boot or login, for the user who installs it."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

from deployments.environment import PROJECT
from sdlora.core.errors import ConfigError
from sdlora.core.files import replace_file

ENVIRONMENT_FILE = "environment"
"""File of the state folder with variables such as SDLORA_DATABASE_URL: a unit can be read by every user."""
STOP_SECONDS = 180

UNIT = """\
[Unit]
Description=sdlora: Prefect, MLflow and a worker for {home}
StartLimitIntervalSec=0

[Service]
Type=simple
WorkingDirectory={project}
ExecStart={command}
EnvironmentFile=-{environment}
UMask=0077
# sdlora stops its runs and servers itself; what is left after {stop} s is killed.
KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec={stop}
# A stop by "sdlora down" is a normal end.
Restart=on-failure
RestartSec=10

[Install]
WantedBy=default.target
"""


def unit_name(home: Path) -> str:
    """Return the unit's name; each state folder has its own."""
    home = home.resolve()
    label = re.sub(r"[^A-Za-z0-9]+", "-", home.name).strip("-") or "home"
    return f"sdlora-{label}-{hashlib.sha256(str(home).encode()).hexdigest()[:8]}.service"


def unit_text(home: Path, arguments: list[str]) -> str:
    """Return the unit.

    Args:
        arguments: those of `sdlora up`, without --home.

    Raises:
        ConfigError: a path has a control character.
    """
    home = home.resolve()
    words = [sys.executable, "-m", "deployments.cli", "up", "--home", str(home), *arguments]
    return UNIT.format(
        home=_literal(str(home)),
        project=_literal(str(PROJECT)),
        command=" ".join(map(_quoted, words)),
        environment=_literal(str(home / ENVIRONMENT_FILE)),
        stop=STOP_SECONDS,
    )


def units_folder() -> Path:
    """Return the folder of the user's units."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "systemd" / "user"


def install_unit(home: Path, arguments: list[str]) -> Path:
    """Write the unit and return its path; a unit of the same state folder is replaced.

    Raises:
        ConfigError: the unit cannot be written, or a path has a control character.
    """
    path = units_folder() / unit_name(home)
    text = unit_text(home, arguments)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


def _literal(text: str) -> str:
    """Escape a path for a unit, where a percent sign begins a specifier."""
    if any(ord(character) < 32 for character in text):
        raise ConfigError(f"systemd cannot name the path {text!r}. Choose a --home without control characters.")
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """Quote a word of a command line in a unit."""
    escaped = _literal(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"'
