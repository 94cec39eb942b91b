"""Location of a store: its folder, or two variables of the environment; and the patience with its server.

The environment is read when a store is opened. Every process of a run then finds the same store, including processes
that a library starts. Addresses may contain passwords, so they are in no file and no configuration.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sdlora.core.errors import ConfigError

DATABASE_URL, BLOBS_URL = "SDLORA_DATABASE_URL", "SDLORA_BLOBS_URL"
PATIENCE = "SDLORA_PATIENCE_SECONDS"
"""Longest wait for a server that is away; set for runs, because a person who waits for a command wants to know."""


def patience_seconds() -> float:
    """Return `SDLORA_PATIENCE_SECONDS`, or 0 if it is not set.

    Raises:
        ConfigError: the value is not a number.
    """
    text = os.environ.get(PATIENCE) or "0"
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{PATIENCE} is {text!r}; expected a number of seconds, such as 600.") from None


@dataclass(frozen=True)
class StoreLocation:
    """Location of the database (a file or a URL) and of the bytes (a folder or a URL for fsspec)."""

    database: Path | str
    blobs: str

    @classmethod
    def of_home(cls, home: Path) -> StoreLocation:
        """Return `SDLORA_DATABASE_URL` and `SDLORA_BLOBS_URL` if set, else `home/images.db` and `home/blobs`."""
        return cls(
            database=os.environ.get(DATABASE_URL) or home / "images.db",
            blobs=os.environ.get(BLOBS_URL) or str((home / "blobs").absolute()),
        )

    @property
    def may_hold_images(self) -> bool:
        """False if the database is a file that does not exist."""
        return not isinstance(self.database, Path) or self.database.is_file()
