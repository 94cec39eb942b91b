"""What programs note of a version: one tag that holds all of it as JSON, so that people's few tags can be read.

One tag is written in one transaction: several notes change together or not at all.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

NOTES_TAG = "sdlora"


def pack_notes(notes: Mapping[str, str]) -> str:
    return json.dumps(dict(notes), indent=1, sort_keys=True)


def unpack_notes(tags: Mapping[str, str]) -> dict[str, str]:
    """The notes among a version's tags; none if the tag is missing or damaged."""
    try:
        notes = json.loads(tags.get(NOTES_TAG, "{}"))
    except ValueError:
        notes = None
    if not isinstance(notes, dict):
        logging.getLogger(__name__).warning("the tag %s of a version is not a JSON object: it is left aside", NOTES_TAG)
        return {}
    return {str(key): str(value) for key, value in notes.items()}


def merge_notes(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags and notes as one; notes win."""
    return {**{key: value for key, value in tags.items() if key != NOTES_TAG}, **unpack_notes(tags)}
