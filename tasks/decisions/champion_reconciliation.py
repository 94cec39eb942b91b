"""Synchronisation of the champion between the image database and MLflow.

Each decision and each change of the champion is an entry of the history in the database. The entry is written first;
MLflow's alias is updated from the entries. If MLflow cannot be reached, its alias is updated by the next run of the
style that publishes.

Only the holder of the style's lock writes the alias. So no process writes the champion of an older history late, which
would look like a person's change.
"""

from __future__ import annotations

from contextlib import suppress

from sdlora.records.champions import ChampionHistory, ScoredVersion
from sdlora.store.champions import champion_history, record_manual_change
from sdlora.store.image_store import ImageStore
from tasks.pages.scores import LEADING
from tasks.run_log import run_log
from tasks.tracking import AdapterVersion, Registry, alias_state, sync_history

LEADING_METRIC = LEADING[0]
"""Metric that the gate reads first and that lists of versions show."""


def reconcile_history(registry: Registry, store: ImageStore, style: str) -> ChampionHistory:
    """Bring MLflow's alias `champion` and the newest entry into agreement, and return the history.

    Entries that MLflow does not show are sent to MLflow. If MLflow shows all entries and its alias differs, a person
    moved the alias. The change is then recorded as an entry. It is also recorded if the version of the newest entry
    was deleted from MLflow.
    """
    with store.lock_style(style):
        history = _read_history(store, style)
        alias, synced_entries = alias_state(registry, style)
        if synced_entries < history.length and registry.holds(style, history.champion):
            return _sync(registry, store, style)
        if alias == (history.champion.number if history.champion else None):
            return history
        aliased = registry.get(style, alias) if alias is not None else None
        version = scored_of_registry(aliased, history) if aliased else None
        why = f"The alias was {'moved' if version else 'removed'} in MLflow."
        with store.write() as session:
            entry = record_manual_change(session, history, "moved by hand", version, "a person in MLflow", why)
        if entry is not None:  # else a decision came first, and wins
            run_log().info("The champion of %s was changed by hand: %s", style, why)
        return _sync(registry, store, style)


def sync_mlflow(registry: Registry, store: ImageStore, style: str) -> ChampionHistory:
    """Update MLflow from the entries. An entry that is added meanwhile is sent by the process that adds it."""
    with store.lock_style(style):
        return _sync(registry, store, style)


def _sync(registry: Registry, store: ImageStore, style: str) -> ChampionHistory:
    history = _read_history(store, style)
    sync_history(registry, history)
    return history


def registered_opponent(registry: Registry, history: ChampionHistory, run_digest: str) -> AdapterVersion | None:
    """Return the registered version that the adapter of a run has to beat; None without an opponent in the registry."""
    opponent = history.opponent(run_digest)
    return (
        registry.get(history.style, opponent.number) if opponent and registry.holds(history.style, opponent) else None
    )


def _read_history(store: ImageStore, style: str) -> ChampionHistory:
    with store.read() as session:
        return champion_history(session, style)


def scored_of_registry(version: AdapterVersion, history: ChampionHistory) -> ScoredVersion:
    """Convert a version that a person chose; digests and scores come from the history, else from the tags."""
    tags = version.tags
    recorded = history.version(version.number)
    if recorded and recorded.adapter_digest == tags["adapter_digest"]:
        return recorded
    return ScoredVersion(
        number=version.number,
        adapter_digest=tags["adapter_digest"],
        snapshot_digest=version.snapshot_digest,
        run_digest=tags.get("run_digest"),
        train_count=version.train_count,
        metric=LEADING_METRIC,
        score=_number(tags.get("kid")),
        base_score=_number(tags.get("kid_base")),
    )


def _number(text: str | None) -> float | None:
    with suppress(ValueError):
        return float(text) if text is not None else None
    return None
