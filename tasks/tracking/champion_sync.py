"""Updates of MLflow from the champion history of the image database: alias, decisions, page of the style."""

from __future__ import annotations

from sdlora.records.champions import ChampionHistory, HistoryEntry
from sdlora.records.metrics import METRICS
from tasks.pages.markdown import markdown_text
from tasks.tracking.registry import Registry
from tasks.tracking.style_page import style_description
from tasks.tracking.versions import CANDIDATE, CHAMPION, WAITING

MAX_SUMMARY_LENGTH = 500
"""Characters of a tag that describes a decision."""
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
    newest = next(iter(registry.versions(style)), None)
    if newest is not None:
        waiting = history.waiting.version if history.waiting else None
        candidate = waiting.number if waiting and registry.holds(style, waiting) else newest.number
        if newest.number != candidate or CANDIDATE not in newest.aliases:
            client.set_registered_model_alias(style, CANDIDATE, str(candidate))
        text = style_description(history, newest.tags.get("base", "unknown"), newest.number)
        client.update_registered_model(style, text)
    client.set_registered_model_tag(style, SYNCED_ENTRIES_TAG, str(history.length))


def _sync_decision(registry: Registry, style: str, entry: HistoryEntry) -> None:
    version = registry.get(style, entry.version.number) if registry.holds(style, entry.version) else None
    if version is None:
        return
    evidence, number = entry.duel_digest or "", str(version.number)
    if entry.is_by_gate and entry.decision_digest == version.tags.get("decision_digest"):
        outcome = WAITING if entry.kind == "waiting" else "promoted" if entry.passed_gate else "not promoted"
        notes = {"answer": entry.answer} if entry.answer else {}
        registry.note(version, {**notes, "decision": outcome, "reasons": entry.why, "duel_digest": evidence})
        registry.client.set_model_version_tag(style, number, "decision", outcome)
    elif entry.decision_digest is not None:  # a later decision, by the gate or a person: the publication's tags stay
        registry.client.set_model_version_tag(style, number, f"decision {entry.number}", _summary(entry))
    if not entry.is_by_gate:
        text = f"**{entry.decided_at:%Y-%m-%d %H:%M} UTC, {entry.kind} by {markdown_text(entry.who)}:**"
        registry.head_description(version, f"{text} {markdown_text(entry.why)}")
    if entry.changes_champion and entry.to_version == version.number:
        champion_before = "" if entry.from_version is None else str(entry.from_version)
        champion_since = entry.decided_at.isoformat(timespec="seconds")
        registry.note(
            version, {"champion_before": champion_before, "champion_since": champion_since, "evidence_digest": evidence}
        )


def _summary(entry: HistoryEntry) -> str:
    """Describe a decision in a line: `2026-11-29, confirmed: KID 0.2931 (base 0.4113)`."""
    metric = METRICS.get(entry.version.metric or "")
    text = f"{entry.decided_at:%Y-%m-%d}, {entry.kind}"
    if not entry.is_by_gate:
        return f"{text} by {entry.who}: {entry.why}"[:MAX_SUMMARY_LENGTH]
    if metric is None or entry.version.score is None:
        return text
    text += f": {metric.label} {metric.number(entry.version.score)}"
    return text if entry.version.base_score is None else f"{text} (base {metric.number(entry.version.base_score)})"
