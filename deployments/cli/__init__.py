"""Command line `sdlora`. Each command imports the heavy libraries that it needs."""

from __future__ import annotations

from deployments.cli.app import main

__all__ = ["main"]
