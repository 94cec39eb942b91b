"""Updates of MLflow from the champion history of the image database: alias, decisions, page of the style."""

from __future__ import annotations

from sdlora.store.champions import ChampionHistory, HistoryEntry
from tasks.tracking.registry import CHAMPION, Registry
from tasks.tracking.style_page import style_description

SYNCED_ENTRIES_TAG = "champion_history"
"""Tag of a registered model with the number of history entries that MLflow shows."""


def alias_state(registry: Registry, style: str) -> tuple[int | None, int]:
    """Return the version number behind the alias `champion`, and the number of history entries that MLflow shows."""
    model = registry.model(style)
    if model is None:
        return None, 0
    number = model.aliases.get(CHAMPION)
    return int(number) if number is not None else None, int(model.tags.get(SYNCED_ENTRIES_TAG, 0))


def sync_history(registry: Registry, history: ChampionHistory) -> None:
    """Update alias, decisions and page of a style. Every step can be repeated; the tag is written last."""
    style, client = history.style, registry.client
    if registry.model(style) is None:
        return
    alias, synced_entries = alias_state(registry, style)
    # Always repeat the newest entry: a process that ended early may have written half of it.
    for entry in history.entries[min(synced_entries, history.length - 1) :]:
        _sync_decision(registry, style, entry)
    champion = history.champion if registry.holds(style, history.champion) else None
    if champion is None and alias is not None:
        client.delete_registered_model_alias(style, CHAMPION)
    elif champion is not None and alias != champion.number:
        client.set_registered_model_alias(style, CHAMPION, str(champion.number))
    _sync_style_page(registry, history)
    client.set_registered_model_tag(style, SYNCED_ENTRIES_TAG, str(history.length))


def _sync_decision(registry: Registry, style: str, entry: HistoryEntry) -> None:
    version = registry.get(style, entry.version.number) if registry.holds(style, entry.version) else None
    if version is None:
        return
    evidence = entry.duel_digest or ""
    if entry.passed_gate is not None:
        outcome = "promoted" if entry.passed_gate else "not promoted"
        registry.note(version, {"decision": outcome, "reasons": entry.why, "duel_digest": evidence})
        registry.client.set_model_version_tag(style, str(version.number), "decision", outcome)
    if entry.changes_champion and entry.to_version == version.number:
        champion_before = "" if entry.from_version is None else str(entry.from_version)
        champion_since = entry.decided_at.isoformat(timespec="seconds")
        registry.note(
            version, {"champion_before": champion_before, "champion_since": champion_since, "evidence_digest": evidence}
        )


def _sync_style_page(registry: Registry, history: ChampionHistory) -> None:
    """Write the description of the style on its MLflow page."""
    newest = next(iter(registry.versions(history.style)), None)
    if newest is not None:
        text = style_description(history, newest.tags.get("base", "unknown"), newest.number)
        registry.client.update_registered_model(history.style, text)
