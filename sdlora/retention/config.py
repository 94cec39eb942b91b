"""Rules of retention, in `retention.yaml` of the state folder."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from sdlora.config import load_file
from sdlora.core.config_base import MAX_COUNT, SettingsSection

FILE = "retention.yaml"


class RetentionConfig(SettingsSection):
    """Numbers of things to keep. They count and do not date, so that a changed clock deletes nothing.

    No rule touches a champion, an earlier champion, a run that has not ended, and what a person rated, chose or
    decided.
    """

    lost_candidates: int = Field(
        10, ge=0, le=MAX_COUNT, description="newest refused versions of each style whose weights and pictures are kept"
    )
    runner_ups: int = Field(
        1, ge=0, le=MAX_COUNT, description="newest versions of each style whose second-best adapter is kept"
    )
    pages: int = Field(20, ge=0, le=MAX_COUNT, description="newest data pages that are kept of each dataset")
    drawn_images: int = Field(
        1000, ge=0, le=MAX_COUNT, description="newest drawn images that are kept of those that nobody rated"
    )
    cache_megabytes: int = Field(
        5000, ge=0, le=MAX_COUNT, description="size of the cache of duels, which is made again when it is needed"
    )
    prefect_days: int = Field(
        90, ge=1, le=36_500, description="days that Prefect keeps its runs, with logs and pages, after their end"
    )


def load_retention(home: Path) -> RetentionConfig:
    """Read the rules of a state folder; without the file, the defaults.

    Raises:
        ConfigError: the file cannot be read, or a setting is wrong.
    """
    path = home / FILE
    return load_file(path, RetentionConfig) if path.is_file() else RetentionConfig()
