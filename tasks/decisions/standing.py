"""Present standing of a version: what was decided on it after the run that published it."""

from __future__ import annotations

from sdlora.core.quoting import escaped
from sdlora.records.champions import ChampionHistory, HistoryEntry, Question
from tasks.results import Release


def with_standing(release: Release, history: ChampionHistory) -> Release:
    """Return the release with the decisions since its publication: by a person, or by a change of the champion."""
    waiting = history.waiting
    waits = waiting is not None and waiting.version.number == release.version
    newest = next((entry for entry in reversed(history.entries) if entry.version.number == release.version), None)
    standing = ""
    if newest is not None and not newest.is_by_gate:
        standing = verdict_line(newest)
    elif newest is not None and newest.kind == "waiting" and not waits:
        standing = void_reason(history, newest)
    return release.model_copy(update={"waits": waits, "standing": standing})


def verdict_line(entry: HistoryEntry) -> str:
    """Describe a person's decision: `promoted by ana: it looks right`."""
    line = f"{entry.kind} by {escaped(entry.who)}"
    return f"{line}: {escaped(entry.why)}" if entry.why else line


def void_reason(history: ChampionHistory, waiting: HistoryEntry) -> str:
    """Say why a candidate that waited, waits no longer: the first later entry that changed the champion or replaced it.

    Args:
        waiting: entry of the candidate, of kind "waiting", which is not `history.waiting`.
    """
    for entry in history.entries[waiting.number :]:
        when = f"on {entry.decided_at:%Y-%m-%d %H:%M} UTC"
        if entry.version.number == waiting.version.number and not entry.is_by_gate:
            return f"it was {verdict_line(entry)}, {when}"
        if entry.changes_champion:
            new = "no version" if entry.to_version is None else f"version {entry.to_version}"
            old = "none" if entry.from_version is None else f"version {entry.from_version}"
            return f"its duel was against the champion of then ({old}), and {new} is the champion since {when[3:]}"
        if entry.version.number == waiting.version.number:
            return f"it was judged again {when}: {entry.kind}"
        if entry.kind == "waiting":
            return f"version {entry.version.number}, a newer candidate, waits {when.replace('on', 'since', 1)}"
    return ""


def why_void(history: ChampionHistory, question: Question) -> str:
    """Say why a question is not open any more."""
    asked = [
        entry
        for entry in history.entries
        if entry.kind == "waiting"
        and entry.version.number == question.version
        and entry.duel_digest == question.duel_digest
        and entry.version.adapter_digest == question.candidate_digest
    ]
    if not asked:
        return "its adapter or its duel is another one now"
    return void_reason(history, asked[-1]) or "the champion is another one now"
