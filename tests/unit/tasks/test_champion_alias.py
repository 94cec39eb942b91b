"""History and alias of a champion, when several processes decide on one style at the same time."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest
from mlflow import MlflowClient

from sdlora.records.champions import ChampionHistory, ScoredVersion
from sdlora.store.champions import champion_history, record_manual_change
from sdlora.store.image_store import ImageStore
from tasks.decisions.champion_reconciliation import reconcile_history, sync_mlflow
from tasks.tracking import Registry, alias_state
from tasks.tracking.notes import NOTES_TAG, pack_notes
from tests.waiting import PATIENCE_SECONDS

VERSIONS = (1, 2, 3)
_numbers = itertools.count()


class Killed(BaseException):
    """End of a process between two writes."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageStore]:
    """One state folder for all tests, each with a style of its own: new MLflow tables take seconds."""
    with ImageStore.open(tmp_path_factory.mktemp("aliases") / "home") as opened:
        yield opened


@pytest.fixture(scope="module")
def registry(store: ImageStore) -> Registry:
    return Registry(store.home)


@pytest.fixture
def style(store: ImageStore, registry: Registry) -> str:
    """A style with three versions without files, the first of which is the champion."""
    name = f"ink-{next(_numbers)}"
    registry.client.create_registered_model(name)
    for number in VERSIONS:
        tags = {NOTES_TAG: pack_notes({"adapter_digest": digest(number)})}
        registry.client.create_model_version(name, source=f"file:///none/{number}", tags=tags)
    choose(store, name, 1)
    sync_mlflow(registry, store, name)
    return name


def digest(number: int) -> str:
    return f"{number}" * 64


def choose(store: ImageStore, style: str, number: int) -> None:
    with store.write() as session:
        history = champion_history(session, style)
        assert record_manual_change(session, history, "rolled back", ScoredVersion(number, digest(number)), "ana", "")


def history(store: ImageStore, style: str) -> ChampionHistory:
    with store.read() as session:
        return champion_history(session, style)


def test_a_process_that_ends_after_a_late_write_of_the_alias_is_no_person_who_moved_it(
    store: ImageStore, registry: Registry, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow process read version 2 as the champion, and writes it after another process wrote version 3."""
    is_about_to_write, other_is_done = threading.Event(), threading.Event()
    write = MlflowClient.set_registered_model_alias

    def write_late(client: MlflowClient, name: str, alias: str, version: str) -> None:
        is_slow = alias == "champion" and threading.current_thread() is slow
        if is_slow:
            is_about_to_write.set()
            other_is_done.wait(timeout=2)  # the other process may have to wait for this one
        write(client, name, alias, version)
        if is_slow:
            raise Killed

    def synchronise() -> None:
        with pytest.raises(Killed):
            sync_mlflow(registry, store, style)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", write_late)
    choose(store, style, 2)
    slow = threading.Thread(target=synchronise, daemon=True)
    slow.start()
    assert is_about_to_write.wait(timeout=PATIENCE_SECONDS)
    choose(store, style, 3)
    sync_mlflow(registry, store, style)
    other_is_done.set()
    slow.join()
    reconciled = reconcile_history(registry, store, style)
    assert [entry.kind for entry in reconciled.entries] == ["rolled back"] * 3
    assert alias_state(registry, style) == (3, 3)


@pytest.mark.parametrize("written", [0, 1])
def test_a_process_that_ends_between_history_and_alias_is_made_good(
    store: ImageStore, registry: Registry, style: str, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    write = MlflowClient.set_registered_model_alias

    def end(client: MlflowClient, name: str, alias: str, version: str) -> None:
        if alias == "champion" and not written:
            raise Killed
        write(client, name, alias, version)
        if alias == "champion":
            raise Killed

    choose(store, style, 2)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", end)
        with pytest.raises(Killed):
            sync_mlflow(registry, store, style)
    assert reconcile_history(registry, store, style).entries == history(store, style).entries
    assert [entry.kind for entry in history(store, style).entries] == ["rolled back"] * 2
    assert alias_state(registry, style) == (2, 2)


def test_a_person_who_moves_the_alias_is_recorded(store: ImageStore, registry: Registry, style: str) -> None:
    registry.client.set_registered_model_alias(style, "champion", "3")
    assert reconcile_history(registry, store, style).entries[-1].kind == "moved by hand"
    assert alias_state(registry, style) == (3, 2)
