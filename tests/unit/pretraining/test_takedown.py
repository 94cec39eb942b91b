from __future__ import annotations

import pytest

from deployments.takedown import clear_copies
from sdlora.core.errors import TakedownError
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import make_snapshot
from sdlora.pretraining.config import DecoderConfig
from sdlora.pretraining.launch import PretrainRequest, pretrain_snapshot
from sdlora.store.image_store import ImageStore
from tests.tiny import TINY, draw_images

DATA = DataConfig(min_train_images=1, min_held_out_images=1, near_duplicate_difference=0, suspect_difference=0)
CONFIG = TINY.model_copy(update={"decoder": DecoderConfig(steps=2, batch_size=2)})


@pytest.fixture
def store(tmp_path):
    with ImageStore.open(tmp_path / "home") as store:
        collect(store.dataset("icons"), str(draw_images(tmp_path / "images", 10)), DATA)
        clean(store.dataset("icons"), DATA)
        yield store


def request_of(store, snapshot) -> PretrainRequest:
    folder = store.home / "bases" / "own-0123456789ab"
    return PretrainRequest(home=store.home, snapshot_digest=snapshot.digest, folder=folder, config=CONFIG)


def test_a_purge_stops_pretraining_and_its_checkpoints_go(store, monkeypatch):
    monkeypatch.setattr("sdlora.data.takedown.POLL_SECONDS", 0.0)
    snapshot = make_snapshot(store.dataset("icons"), DATA)
    request, stages = request_of(store, snapshot), []

    def on_metrics(stage, _step, _values):
        stages.append(stage)
        if len(set(stages)) == 2:
            store.purge(snapshot.train[0].sha256, "a takedown", "ana")

    with pytest.raises(TakedownError, match=snapshot.train[0].sha256[:12]):
        pretrain_snapshot(request, on_metrics=on_metrics)
    assert len(set(stages)) < 4
    assert not (request.folder / "stages").exists() and not (request.folder / "model").exists()


def test_a_finished_base_model_is_left_to_a_person_and_its_checkpoints_go(store):
    snapshot = make_snapshot(store.dataset("icons"), DATA)
    request = request_of(store, snapshot)
    pretrain_snapshot(request)
    assert (request.folder / "stages").is_dir()
    held_out = clear_copies(store, store.purge(snapshot.held_out[0].sha256, "a takedown", "ana").lineage)
    assert held_out.bases == () and (request.folder / "stages").is_dir()
    cleared = clear_copies(store, store.purge(snapshot.train[0].sha256, "a takedown", "ana").lineage)
    assert cleared.bases == (request.folder,)
    assert (request.folder / "model").is_dir() and not (request.folder / "stages").exists()
