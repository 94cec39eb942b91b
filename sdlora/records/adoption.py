"""Adoption of an adapter from a file: which file, by whom and why."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

from sdlora.core.config_base import FrozenConfig
from sdlora.core.files import replace_file

ADOPTION_FILE = "adoption.json"


class Adoption(FrozenConfig):
    """Adapter that was made elsewhere and adopted from a file. Its training images are unknown."""

    file: str = Field(description="name of the file, without its folder")
    sha256: str = Field(description="digest of the file")
    who: str
    why: str

    def in_words(self) -> str:
        """Describe the adoption in a sentence."""
        why = f": {self.why.rstrip('.')}" if self.why else ""
        return f"Adopted from the file {self.file} ({self.sha256[:12]}) by {self.who}, training images unknown{why}."


def write_adoption(folder: Path, adoption: Adoption) -> None:
    """Write `adoption.json` into the folder of a run.

    Raises:
        StorageError: the disk is full or not writable.
    """
    replace_file(folder / ADOPTION_FILE, f"{json.dumps(adoption.model_dump(), indent=1)}\n".encode())


def load_adoption(folder: Path) -> Adoption:
    """Read the `adoption.json` of a run that converted a file."""
    return Adoption.model_validate_json((folder / ADOPTION_FILE).read_bytes())
