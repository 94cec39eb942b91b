from __future__ import annotations

import torch

from sdlora.data import load_images_uint8
from sdlora.models import parts
from sdlora.models.encode import encode_images, encode_text
from sdlora.models.families import family_of
from sdlora.store import ImageStore
from sdlora.training.inputs.encoded import encode_rows
from tests.unit.training.setting import as_snapshot, fill_store

CPU = torch.device("cpu")


def test_cached_tensors_are_the_encoders_own(base, store, snapshot):
    encoded = encode_rows(base, snapshot.train, store, (64,), mirror=True, device=CPU)
    images = load_images_uint8(store, snapshot.train, 64)
    autoencoder = parts.load_autoencoder(base)
    for cached, pictures in ((encoded.views[0].latents, images), (encoded.views[0].mirrored, images.flip(-1))):
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
        encode_rows(base, first.rows, store, (64,), device=CPU, on_progress=lambda *call: seen.append(call))
        assert [call for call in seen if call[0] == "encode images"] == [("encode images", 4, 4)]
        seen.clear()
        encode_rows(base, first.rows, store, (64,), device=CPU, on_progress=lambda *call: seen.append(call))
        assert not seen
        second = fill_store(store, tmp_path / "second", count=3, seed=1)
        both = as_snapshot([*first.rows, *second.rows])
        encode_rows(base, both.rows, store, (64,), device=CPU, on_progress=lambda *call: seen.append(call))
        assert [call for call in seen if call[0] == "encode images"] == [("encode images", 3, 3)]


def test_another_size_or_another_autoencoder_is_never_answered_from_the_same_entries(base, store, snapshot):
    rows = snapshot.train[:1]
    small = encode_rows(base, rows, store, (32,), device=CPU).views[0].latents[rows[0].sha256]
    large = encode_rows(base, rows, store, (64,), device=CPU).views[0].latents[rows[0].sha256]
    assert small.shape != large.shape
