"""Headline numbers at the top of a page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """Headline number with its label and detail."""

    label: str
    value: str
    detail: str
