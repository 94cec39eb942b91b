from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdlora.data import SnapshotRow
from sdlora.diffusion.objectives import DenoisingObjective
from sdlora.training.batches import draw_batch, image_indices
from sdlora.training.encoded import EncodedRows
from tests.unit.training.setting import CONFIG

UNIFORM = DenoisingObjective(torch.linspace(0.99, 0.01, 1000), "epsilon")


@pytest.fixture
def encoded():
    rows = tuple(SnapshotRow(str(i), (f"{i}", f"{i} again"), "train") for i in range(5))
    captions = ["", *(caption for row in rows for caption in row.captions)]
    return EncodedRows(
        rows,
        latents={row.sha256: torch.full((4, 2, 2), float(row.sha256)) for row in rows},
        mirrored={row.sha256: torch.full((4, 2, 2), -float(row.sha256)) for row in rows},
        embeddings={caption: {"text": torch.full((3, 2), float(i))} for i, caption in enumerate(captions)},
    )


def config(**changes):
    return CONFIG.model_copy(update={"batch_size": 4, **changes})


@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 1000))
def test_every_image_is_seen_once_per_epoch(count, batch_size, seed):
    seen = [index for step in range(count) for index in image_indices(count, batch_size, seed, step)]
    for epoch in range(batch_size):  # count steps of batch_size images are batch_size whole epochs
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_epochs_and_seeds_have_their_own_order():
    orders = [image_indices(20, 20, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(order) for order in orders}) == 3


def test_a_batch_depends_on_the_step_alone(encoded):
    batches = [draw_batch(encoded, config(), step, UNIFORM) for step in (3, 4, 3)]
    assert torch.equal(batches[0].noise, batches[2].noise)
    assert torch.equal(batches[0].conditioning["text"], batches[2].conditioning["text"])
    assert not torch.equal(batches[0].noise, batches[1].noise)
    assert not torch.equal(batches[0].timesteps, batches[1].timesteps)


@pytest.mark.parametrize("processes", [2, 4])
def test_the_processes_shares_make_up_the_whole_batch(encoded, processes):
    whole = draw_batch(encoded, config(horizontal_flip=True), 2, UNIFORM)
    shares = [
        draw_batch(encoded, config(horizontal_flip=True), 2, UNIFORM, rank, processes) for rank in range(processes)
    ]
    for name in ("latents", "noise", "timesteps"):
        assert torch.equal(torch.cat([getattr(share, name) for share in shares]), getattr(whole, name))
    together = torch.cat([share.conditioning["text"] for share in shares])
    assert torch.equal(together, whole.conditioning["text"])


def test_captions_belong_to_their_image_and_all_are_used(encoded):
    seen = Counter()
    for step in range(50):
        batch = draw_batch(encoded, config(caption_dropout=0.0), step, UNIFORM)
        for latents, embedding in zip(batch.latents, batch.conditioning["text"], strict=True):
            image, caption = int(latents[0, 0, 0]), int(embedding[0, 0])
            assert (caption - 1) // 2 == image
            seen[caption] += 1
    assert len(seen) == 10
    assert min(seen.values()) > 5


@pytest.mark.parametrize(("share", "lowest", "highest"), [(0.0, 0.0, 0.0), (0.3, 0.2, 0.4), (1.0, 1.0, 1.0)])
def test_the_asked_share_of_captions_is_dropped(encoded, share, lowest, highest):
    dropped = [
        (draw_batch(encoded, config(caption_dropout=share), step, UNIFORM).conditioning["text"][:, 0, 0] == 0)
        .float()
        .mean()
        for step in range(100)
    ]
    assert lowest <= torch.stack(dropped).mean() <= highest


def test_half_of_the_images_are_mirrored_when_asked_and_none_otherwise(encoded):
    def mirrored(flip):
        batches = [draw_batch(encoded, config(horizontal_flip=flip), step, UNIFORM) for step in range(100)]
        values = torch.cat([batch.latents[:, 0, 0, 0] for batch in batches])
        return (values < 0).float().mean() / (values != 0).float().mean()

    assert mirrored(False) == 0
    assert 0.4 < mirrored(True) < 0.6
