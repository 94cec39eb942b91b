"""Notes of programs on a version, as JSON in one tag, so that the few tags for people stay readable.

MLflow writes one tag in one transaction: several notes change together or not at all.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

NOTES_TAG = "sdlora"


def pack_notes(notes: Mapping[str, str]) -> str:
    return json.dumps(dict(notes), indent=1, sort_keys=True)


def unpack_notes(tags: Mapping[str, str]) -> dict[str, str]:
    """Parse the notes in a version's tags; empty if the tag is missing or damaged."""
    try:
        notes = json.loads(tags.get(NOTES_TAG, "{}"))
    except ValueError:
        notes = None
    if not isinstance(notes, dict):
        logging.getLogger(__name__).warning("the tag %s of a version is not a JSON object and is ignored", NOTES_TAG)
        return {}
    return {str(key): str(value) for key, value in notes.items()}


def merge_notes(tags: Mapping[str, str]) -> dict[str, str]:
    """Merge tags and notes; notes take precedence."""
    return {**{key: value for key, value in tags.items() if key != NOTES_TAG}, **unpack_notes(tags)}
