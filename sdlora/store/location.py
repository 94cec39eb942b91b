"""Where a store lies: in its folder, or where two variables of the environment say.

The environment is read when a store is opened, because every process of a run has to find the same one, those that a
library starts by itself too. Addresses may hold passwords, so they are in no file and no configuration.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

DATABASE_URL, BLOBS_URL = "SDLORA_DATABASE_URL", "SDLORA_BLOBS_URL"


@dataclass(frozen=True)
class StoreLocation:
    """The database (a file, or an address) and the place of the bytes (a folder, or an address for fsspec)."""

    database: Path | str
    blobs: str

    @classmethod
    def of_home(cls, home: Path) -> StoreLocation:
        """`SDLORA_DATABASE_URL` and `SDLORA_BLOBS_URL` if they are set, else `home/images.db` and `home/blobs`."""
        return cls(
            database=os.environ.get(DATABASE_URL) or home / "images.db",
            blobs=os.environ.get(BLOBS_URL) or str((home / "blobs").absolute()),
        )

    @property
    def may_hold_images(self) -> bool:
        """False if the database is a file that is not there."""
        return not isinstance(self.database, Path) or self.database.is_file()
