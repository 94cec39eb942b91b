from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sdlora.core.errors import TrainingError
from sdlora.core.progress import SILENT
from sdlora.data.pixels import load_images_uint8
from sdlora.models import parts
from sdlora.models.encode import encode_images, encode_text
from sdlora.models.families import family_of
from sdlora.store.image_store import ImageStore
from sdlora.training.inputs import image_encoder
from sdlora.training.inputs.encoded import Encoding, encode_rows
from sdlora.training.job import TrainingJob
from sdlora.training.setup import encode_inputs
from tests.settings import filled_training
from tests.unit.training.setting import LORA, as_snapshot, fill_store

CPU = torch.device("cpu")


def test_cached_tensors_are_the_encoders_own(base, store, snapshot):
    encoded = encode_rows(base, snapshot.train, store, Encoding((64,), mirror=True), device=CPU)
    images = load_images_uint8(store, snapshot.train, 64)
    autoencoder = parts.load_autoencoder(base)
    for cached, pictures in (
        (encoded.resolutions[0].latents, images),
        (encoded.resolutions[0].mirrored, images.flip(-1)),
    ):
        for row, latents in zip(snapshot.train, encode_images(autoencoder, pictures), strict=True):
            torch.testing.assert_close(cached[row.sha256], latents, atol=1e-5, rtol=1e-4)
    captions = sorted({"", *(caption for row in snapshot.train for caption in row.captions)})
    assert sorted(encoded.embeddings) == captions
    (part,) = family_of(base.folder).text_parts
    expected = encode_text(part, parts.load_tokenizer(base, part), parts.load_text_encoder(base, part), captions)
    for caption, embedding in zip(captions, expected["hidden"], strict=True):
        cached = encoded.embeddings[caption]["encoder_hidden_states"]
        torch.testing.assert_close(cached, embedding, atol=1e-5, rtol=1e-4)


def test_only_new_images_are_encoded(base, tmp_path):
    with ImageStore.open(tmp_path / "home") as store:
        first = fill_store(store, tmp_path / "first", count=4)
        seen = []
        encode_rows(base, first.rows, store, Encoding((64,)), device=CPU, on_progress=lambda *call: seen.append(call))
        assert [call for call in seen if call[0] == "encode images"] == [("encode images", 4, 4)]
        seen.clear()
        encode_rows(base, first.rows, store, Encoding((64,)), device=CPU, on_progress=lambda *call: seen.append(call))
        assert not seen
        second = fill_store(store, tmp_path / "second", count=3, seed=1)
        both = as_snapshot([*first.rows, *second.rows])
        encode_rows(base, both.rows, store, Encoding((64,)), device=CPU, on_progress=lambda *call: seen.append(call))
        assert [call for call in seen if call[0] == "encode images"] == [("encode images", 3, 3)]


def test_another_size_or_another_autoencoder_is_never_answered_from_the_same_entries(base, store, snapshot):
    rows = snapshot.train[:1]
    small = encode_rows(base, rows, store, Encoding((32,)), device=CPU).resolutions[0].latents[rows[0].sha256]
    large = encode_rows(base, rows, store, Encoding((64,)), device=CPU).resolutions[0].latents[rows[0].sha256]
    assert small.shape != large.shape


def test_a_text_encoder_is_loaded_once_for_training_and_held_out_captions(base, tmp_path, monkeypatch):
    loaded = []
    load = parts.load_text_encoder
    monkeypatch.setattr(parts, "load_text_encoder", lambda *args: loaded.append(args[1].folder) or load(*args))
    with ImageStore.open(tmp_path / "home") as store:
        rows = fill_store(store, tmp_path / "images", count=6).rows
        halves = [
            replace(row, captions=(f"picture {n}",), split=split)
            for n, (row, split) in enumerate(zip(rows, ["train", "held_out"] * 3, strict=True))
        ]
        job = TrainingJob(base, as_snapshot(halves), LORA, filled_training(), tmp_path)
        inputs = encode_inputs(job, store, CPU, SILENT.on_progress)
    assert loaded == ["text_encoder"]
    assert "picture 0" in inputs.train.embeddings
    assert "picture 1" in inputs.held_out.embeddings


def test_latents_do_not_depend_on_how_many_images_arrived_together(base, tmp_path):
    latents = []
    for count in (3, 11):
        with ImageStore.open(tmp_path / str(count)) as store:
            rows = fill_store(store, tmp_path / f"images-{count}", count=count).rows
            latents.append(encode_rows(base, rows, store, Encoding((64,)), device=CPU).resolutions[0].latents)
    shared = latents[0].keys() & latents[1].keys()
    assert len(shared) == 3
    assert all(torch.equal(latents[0][digest], latents[1][digest]) for digest in shared)


def test_images_too_large_for_the_memory_are_refused_before_they_are_read(base, store, snapshot, monkeypatch):
    monkeypatch.setattr(image_encoder, "load_images_uint8", lambda *_: pytest.fail("an image was read"))
    with pytest.raises(TrainingError, match=r"training.resolutions: encoding images of 65536 x 65536 px needs .* GiB"):
        encode_rows(base, snapshot.train, store, Encoding((65536,)), device=CPU)
