"""Version of the code, for records."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import sdlora


@cache  # the code that runs does not change, and git takes as long as 2,000 files
def code_version() -> str:
    """Return the release, in a checkout with the commit: `0.1.0+3f2a1b9`, with `.dirty` for uncommitted changes."""
    root = Path(sdlora.__file__).parent.parent
    if not (root / ".git").exists():
        return sdlora.__version__
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=.dirty", "--exclude=*", "--abbrev=12"]
    try:
        description = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git, or no commit
        return sdlora.__version__
    return f"{sdlora.__version__}+{description}"
