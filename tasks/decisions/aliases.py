"""Aliases of all styles: what a person moves in MLflow is recorded, exported and told, without a run of the style.

`sdlora up` looks for moved aliases every minute, by one request. `reconcile` repairs what is left every quarter of an
hour, such as an alias whose update was cut off.
"""

from __future__ import annotations

from pathlib import Path

from sdlora.store.champions import champion_history, styles_with_history
from sdlora.store.image_store import ImageStore
from sdlora.store.location import StoreLocation
from tasks.decisions.champion_reconciliation import reconcile_history
from tasks.decisions.question import follow_decision
from tasks.export import export_again
from tasks.run_log import log_text, run_log
from tasks.tracking import Registry, has_records


def reconcile_aliases(home: Path) -> list[str]:
    """Bring MLflow's aliases and the history of champions into agreement, for every style; return what was found."""
    if not has_records(home):
        return []
    with ImageStore.open(home) as store:
        with store.read() as session:
            styles = styles_with_history(session)
        return _reconcile(Registry(home), store, styles, home)


def notice_moved_aliases(home: Path) -> list[str]:
    """Record the champions that a person has chosen in MLflow since the last look; return what was found."""
    if not has_records(home) or not StoreLocation.of_home(home).may_hold_images:
        return []
    registry = Registry(home)
    aliases = registry.champions()
    with ImageStore.open(home) as store:
        with store.read() as session:
            histories = [champion_history(session, style) for style in styles_with_history(session)]
        moved = [
            history.style
            for history in histories
            if history.style in aliases
            and aliases[history.style] != (history.champion.number if history.champion else None)
        ]
        return _reconcile(registry, store, moved, home)


def _reconcile(registry: Registry, store: ImageStore, styles: list[str], home: Path) -> list[str]:
    found = []
    for style in styles:
        try:
            with store.read() as session:
                before = champion_history(session, style).length
            history = reconcile_history(registry, store, style)
        except Exception as error:  # noqa: BLE001  # the other styles are repaired
            run_log().warning("%s: alias not repaired", style, exc_info=True)
            found.append(f"{style}: alias not repaired: {log_text(error)}")
            continue
        if history.length != before:
            found.append(f"{style}: the champion was changed in MLflow, and the history has it now")
            export_again(style, home)
        follow_decision(style, home)  # a run that was killed before it asked, or a question that is void
    return found
