"""Deletion of what the rules of retention list, in the state folder and in MLflow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from sdlora.core.progress import SILENT, OnProgress
from sdlora.core.refs import AdapterRef
from sdlora.retention import scan
from sdlora.retention.config import load_retention
from sdlora.retention.rules import Removal, plan_removals
from sdlora.retention.state import State, StoredFile, StoredVersion
from sdlora.retention.trash import empty_trash, remove_whole, replace_by_link
from sdlora.store.champions import champion_history, styles_with_history
from sdlora.store.image_store import ImageStore
from sdlora.store.location import StoreLocation
from sdlora.store.removed_files import (
    drop_drawn_images,
    forget_removal,
    record_removal,
    removed_files,
)
from tasks.lock import exclusive_lock
from tasks.tracking import CANDIDATE, AdapterVersion, Registry, has_records


@dataclass(frozen=True)
class Garbage:
    """Things that were deleted, or that would be in a dry run; sizes are bytes that the deletion frees.

    Attributes:
        unfinished: folders of trainings that have not ended, which no rule deletes.
    """

    removals: tuple[Removal, ...]
    is_dry_run: bool
    unfinished: tuple[StoredFile, ...] = ()

    @property
    def size(self) -> int:
        return sum(removal.size for removal in self.removals)


def collect_garbage(home: Path, *, dry_run: bool = False, on_progress: OnProgress = SILENT.on_progress) -> Garbage:
    """Delete what the rules of the state folder list; a call after a kill finishes what was begun.

    No run may work meanwhile, because a run reads and writes the same files.

    Args:
        home: the state folder.
        dry_run: list only, and change nothing; works during a run.
        on_progress: called with "delete" and the number of things.

    Raises:
        ConfigError: `retention.yaml` is wrong.
        TrainingError: a run works in the state folder.
        StorageError: something cannot be deleted.
    """
    rules = load_retention(home)
    if not home.is_dir():  # a misspelt folder is not made
        return Garbage((), dry_run)
    location = StoreLocation.of_home(home)
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(exclusive_lock(home))
        store = stack.enter_context(ImageStore.open(home, location)) if location.may_hold_images else None
        registry = Registry(home) if has_records(home) else None
        if not dry_run:
            empty_trash(home)
            if store is not None:
                store.delete_unreferenced()
        planned = plan_removals(_state(home, store, registry), rules)
        removals = [replace(each, size=each.size + scan.freed_bytes(each.paths)) for each in planned]
        if not dry_run:
            _remove_all(removals, home, store, registry, on_progress)
    return Garbage(tuple(removals), dry_run, tuple(scan.unfinished_runs(home)))


def return_removed_files(registry: Registry, version: AdapterVersion, adapter: AdapterRef, home: Path) -> None:
    """Store the weights of a version again if retention had removed them; the adapter was trained again."""
    from tasks.tracking.stored_files import return_weights

    if version.files_removed:
        return_weights(registry, version, adapter.folder)
        with ImageStore.open(home) as store, store.write() as session:
            forget_removal(session, version.name, version.number)


def _state(home: Path, store: ImageStore | None, registry: Registry | None) -> State:
    from tasks.tracking.stored_files import unreferenced_models

    state = State(pages=scan.data_pages(home), cache=scan.duel_caches(home))
    if store is not None:
        with store.read() as session:
            state = replace(state, drawn=scan.unrated_drawn_images(session, store.blobs))
        if registry is not None:
            versions = tuple(_versions(home, store, registry))
            state = replace(state, versions=versions, models=unreferenced_models(registry, _own_styles(store)))
    return state


def _own_styles(store: ImageStore) -> list[str]:
    with store.read() as session:
        return styles_with_history(session)


def _versions(home: Path, store: ImageStore, registry: Registry) -> Iterator[StoredVersion]:
    from tasks.tracking.stored_files import stored_weights

    with store.read() as session:
        rated = scan.rated_versions(session)
    for style in registry.names():
        with store.read() as session:
            history, removed = champion_history(session, style), removed_files(session, style)
        for version in registry.versions(style):
            if not version.published:
                continue  # the next run finishes its publication
            reason = scan.protection(history, version.number)
            if f"{style} version {version.number}" in rated:
                reason = reason or "a person rated an image that it drew"
            if aliases := [alias for alias in version.aliases if alias != CANDIDATE]:
                reason = reason or f"it has the alias {aliases[0]} in MLflow"
            removal = removed.get(version.number)
            yield StoredVersion(
                style=style,
                number=version.number,
                protection=reason,
                runs=tuple(
                    scan.stored_run(home / "runs" / style / digest[:16]) for digest in version.run_digests if digest
                ),
                weights_bytes=0 if reason else sum(stored_weights(registry, version).values()),
                removed_at=removal.removed_at if removal else None,
            )


def _remove_all(
    removals: Sequence[Removal], home: Path, store: ImageStore | None, registry: Registry | None, report: OnProgress
) -> None:
    for done, removal in enumerate(removals, 1):
        if removal.kind == "lost candidate":
            assert store is not None and registry is not None
            _remove_files_of_version(removal, home, store, registry)
        elif removal.kind == "second copy":
            for path in removal.paths:
                replace_by_link(path, path.parent.with_name("adapter") / path.name)
        elif removal.kind == "model":
            from tasks.tracking.stored_files import delete_model

            assert registry is not None
            delete_model(registry, removal.key)
        elif removal.kind != "drawn image":
            for path in removal.paths:
                remove_whole(home, path)
        report("delete", done, len(removals))
    drawn = [removal.key for removal in removals if removal.kind == "drawn image"]
    if drawn and store is not None:
        with store.write() as session:
            drop_drawn_images(session, drawn)
        store.delete_unreferenced()


def _remove_files_of_version(removal: Removal, home: Path, store: ImageStore, registry: Registry) -> None:
    """Record the removal, then delete: a kill leaves whole files, or a record by which the next call goes on."""
    from tasks.tracking.stored_files import remove_weights

    version = removal.version
    assert version is not None
    with store.write() as session:
        record = record_removal(session, version.style, version.number, removal.why)
    registered = registry.get(version.style, version.number)
    if registered is not None:
        remove_weights(registry, registered, str(record))
    for path in removal.paths:
        remove_whole(home, path)
