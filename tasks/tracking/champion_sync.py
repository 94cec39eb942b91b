"""What MLflow shows of the history that the image database keeps: alias, decisions, the page of the style."""

from __future__ import annotations

from sdlora.store.champions import ChampionHistory, HistoryEntry
from tasks.tracking.registry import CHAMPION, Registry
from tasks.tracking.style_page import style_description

SYNCED_ENTRIES_TAG = "champion_history"
"""The tag of a registered model that tells how many entries of the history MLflow has followed."""


def alias_state(registry: Registry, style: str) -> tuple[int | None, int]:
    """The number of the version with the alias `champion`, and how many entries of the history MLflow followed."""
    model = registry.model(style)
    if model is None:
        return None, 0
    number = model.aliases.get(CHAMPION)
    return int(number) if number is not None else None, int(model.tags.get(SYNCED_ENTRIES_TAG, 0))


def sync_history(registry: Registry, history: ChampionHistory) -> None:
    """Bring MLflow into line with the history. All of it can be repeated; that it was done is noted last."""
    style, client = history.style, registry.client
    if registry.model(style) is None:
        return
    alias, synced_entries = alias_state(registry, style)
    # The newest one in any case: a process that ended early may have shown half of it.
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
    if entry.promoted is not None:
        outcome = "promoted" if entry.promoted else "not promoted"
        registry.note(version, {"decision": outcome, "reasons": entry.why, "duel_digest": evidence})
        registry.client.set_model_version_tag(style, str(version.number), "decision", outcome)
    if entry.changes_champion and entry.to_version == version.number:
        champion_before = "" if entry.from_version is None else str(entry.from_version)
        champion_since = entry.decided_at.isoformat(timespec="seconds")
        registry.note(
            version, {"champion_before": champion_before, "champion_since": champion_since, "evidence_digest": evidence}
        )


def _sync_style_page(registry: Registry, history: ChampionHistory) -> None:
    """Write what the line of adapters is, and who was champion when, on its page."""
    newest = next(iter(registry.versions(history.style)), None)
    if newest is not None:
        text = style_description(history, newest.tags.get("base", "unknown"), newest.number)
        registry.client.update_registered_model(history.style, text)
