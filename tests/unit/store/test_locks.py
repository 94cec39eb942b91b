"""The lock of a style: one holder of all processes and machines, gone with its holder."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from sdlora.core.errors import StorageError
from sdlora.store import locks
from sdlora.store.image_store import ImageStore
from sdlora.store.location import StoreLocation
from tests.stores import both_places
from tests.waiting import PATIENCE_SECONDS


def _hold(home: Path, location: StoreLocation, holds: object) -> None:
    with ImageStore.open(home, location) as store, store.lock_style("ink"):
        holds.set()
        time.sleep(600)


@both_places
def test_a_style_has_one_holder_until_it_is_killed(
    store: ImageStore, location: StoreLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn = multiprocessing.get_context("spawn")
    holds = spawn.Event()
    holder = spawn.Process(target=_hold, args=(store.home, location, holds), daemon=True)
    holder.start()
    assert holds.wait(timeout=PATIENCE_SECONDS)
    with monkeypatch.context() as patch:
        patch.setattr(locks, "_WAIT_SECONDS", 0.2)
        with pytest.raises(StorageError, match="the champion of 'ink' for too long"), store.lock_style("ink"):
            pass
    with store.lock_style("wood"), store.write():  # other styles and the database are free
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with store.lock_style("ink"):
        pass
    error = ConnectionError("MLflow is away")  # an OSError, which is not one of the database
    with pytest.raises(ConnectionError, match="MLflow is away"), store.lock_style("ink"):
        raise error
    with store.lock_style("ink"):
        pass
