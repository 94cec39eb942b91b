"""The command line `sdlora`. Heavy libraries are imported by the commands that need them."""

from __future__ import annotations

from deployments.cli.app import main

__all__ = ["main"]
