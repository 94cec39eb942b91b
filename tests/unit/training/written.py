"""What a run has written, without what differs between two equal runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def curve(folder: Path) -> list[dict[str, Any]]:
    """The points of a run's curve but for its speed."""
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in point.items() if name != "images_per_second"} for point in points]
