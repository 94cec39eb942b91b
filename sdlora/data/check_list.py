"""List of all checks for display: the measure and the settings of each."""

from __future__ import annotations

from dataclasses import dataclass

from sdlora.data.checks import CHECKS, RECORD_CHECKS, Check, RecordCheck
from sdlora.data.config import DataConfig
from sdlora.data.duplicates import fingerprint
from sdlora.data.duplicates.groups import EXACT, NEAR
from sdlora.data.split import LEAK


@dataclass(frozen=True)
class ListedCheck:
    """Check of the list. `settings` holds the current values of the DataConfig fields that decide."""

    name: str
    version: int
    measures: str
    settings: dict[str, object]


def list_checks(config: DataConfig) -> list[ListedCheck]:
    """List every check in the order of evaluation: pixels, records, copies, leaks across the split."""
    pair_checks = (
        (EXACT, "1 if another image shows the same pixels and is kept, else 0.", ()),
        (NEAR, "Difference from the image that is kept, in grey levels of 255.", ("near_duplicate_difference",)),
        (LEAK, "Difference from an image on the other side of the split.", ("suspect_difference",)),
    )
    checks: tuple[Check | RecordCheck, ...] = (*CHECKS, *RECORD_CHECKS)
    rows = [(check.name, check.version, check.measures, check.settings) for check in checks]
    rows += [(name, fingerprint.VERSION, measures, settings) for name, measures, settings in pair_checks]
    return [
        ListedCheck(name, version, measures, {setting: getattr(config, setting) for setting in settings})
        for name, version, measures, settings in rows
    ]
