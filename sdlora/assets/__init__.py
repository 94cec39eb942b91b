"""Files that ship inside the package: the embedded base model and the demo images."""

from __future__ import annotations

from pathlib import Path

DEMO_FOLDER = Path(__file__).with_name("demo")
DEMO_LATER = DEMO_FOLDER / "later"
