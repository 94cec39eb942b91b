from __future__ import annotations

from collections import Counter

import pytest
import torch

from sdlora.data.snapshot import SnapshotRow
from sdlora.diffusion.objectives import DenoisingObjective
from sdlora.training.inputs.batches import BatchGroup, draw_step
from sdlora.training.inputs.encoded import EncodedRows, Resolution
from sdlora.training.inputs.order import EpochOrder
from tests.unit.training.setting import CONFIG

UNIFORM = DenoisingObjective(torch.linspace(0.99, 0.01, 1000), "epsilon")


@pytest.fixture
def encoded():
    rows = tuple(SnapshotRow(str(i), (f"{i}", f"{i} again"), "train") for i in range(5))
    captions = ["", *(caption for row in rows for caption in row.captions)]
    return EncodedRows(
        rows,
        resolutions=(
            Resolution(
                latents={row.sha256: torch.full((4, 2, 2), float(row.sha256)) for row in rows},
                mirrored={row.sha256: torch.full((4, 2, 2), -float(row.sha256)) for row in rows},
            ),
        ),
        embeddings={caption: {"text": torch.full((3, 2), float(i))} for i, caption in enumerate(captions)},
    )


def config(**changes):
    return CONFIG.model_copy(update={"batch_size": 4, **changes})


def draw_batches(encoded, settings, step, *processes):
    order = EpochOrder(encoded.shapes(), settings.batch_size, settings.seed)
    return draw_step([BatchGroup(encoded, order)], settings, step, UNIFORM, *processes)


def draw_batch(encoded, settings, step, *processes):
    (batch,) = draw_batches(encoded, settings, step, *processes)
    return batch


def joined(batches, name):
    return torch.cat([getattr(batch, name) for batch in batches])


def test_a_batch_depends_on_the_step_alone(encoded):
    batches = [draw_batch(encoded, config(), step) for step in (3, 4, 3)]
    assert torch.equal(batches[0].noise, batches[2].noise)
    assert torch.equal(batches[0].conditioning["text"], batches[2].conditioning["text"])
    assert not torch.equal(batches[0].noise, batches[1].noise)
    assert not torch.equal(batches[0].timesteps, batches[1].timesteps)


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("repeats", [None, [3, 1, 6, 1, 2]])
def test_the_processes_shares_make_up_the_whole_batch(encoded, processes, repeats):
    settings = config(horizontal_flip=True)
    group = BatchGroup(encoded, EpochOrder(encoded.shapes(), settings.batch_size, settings.seed, repeats))
    (whole,) = draw_step([group], settings, 2, UNIFORM)
    shares = [batch for rank in range(processes) for batch in draw_step([group], settings, 2, UNIFORM, rank, processes)]
    for name in ("latents", "noise", "timesteps"):
        assert torch.equal(torch.cat([getattr(share, name) for share in shares]), getattr(whole, name))
    together = torch.cat([share.conditioning["text"] for share in shares])
    assert torch.equal(together, whole.conditioning["text"])


def test_captions_belong_to_their_image_and_all_are_used(encoded):
    seen = Counter()
    for step in range(50):
        batch = draw_batch(encoded, config(caption_dropout=0.0), step)
        for latents, embedding in zip(batch.latents, batch.conditioning["text"], strict=True):
            image, caption = int(latents[0, 0, 0]), int(embedding[0, 0])
            assert (caption - 1) // 2 == image
            seen[caption] += 1
    assert len(seen) == 10
    assert min(seen.values()) > 5


@pytest.mark.parametrize(("share", "lowest", "highest"), [(0.0, 0.0, 0.0), (0.3, 0.2, 0.4), (1.0, 1.0, 1.0)])
def test_the_asked_share_of_captions_is_dropped(encoded, share, lowest, highest):
    dropped = [
        (draw_batch(encoded, config(caption_dropout=share), step).conditioning["text"][:, 0, 0] == 0).float().mean()
        for step in range(100)
    ]
    assert lowest <= torch.stack(dropped).mean() <= highest


def test_half_of_the_images_are_mirrored_when_asked_and_none_otherwise(encoded):
    def mirrored(flip):
        batches = [draw_batch(encoded, config(horizontal_flip=flip), step) for step in range(100)]
        values = torch.cat([batch.latents[:, 0, 0, 0] for batch in batches])
        return (values < 0).float().mean() / (values != 0).float().mean()

    assert mirrored(False) == 0
    assert 0.4 < mirrored(True) < 0.6


def test_a_micro_batch_is_a_part_of_the_same_step(encoded):
    whole = draw_batch(encoded, config(), 2)
    parts = draw_batches(encoded, config(), 2, 0, 1, 3)
    assert [len(part.timesteps) for part in parts] == [3, 1]
    for name in ("latents", "noise", "timesteps", "loss_weights"):
        assert torch.equal(joined(parts, name), getattr(whole, name)), name
    assert joined(parts, "loss_weights").sum() == pytest.approx(1.0)


@pytest.mark.parametrize("processes", [1, 2])
def test_unlike_shapes_share_a_step_but_never_a_batch(encoded, processes):
    latents = dict(encoded.resolutions[0].latents) | {
        "3": torch.full((4, 2, 3), 3.0),
        "4": torch.full((4, 3, 2), 4.0),
    }  # each alone in its bucket
    mixed = EncodedRows(encoded.rows, (Resolution(latents),), encoded.embeddings)
    seen = []
    for step in range(5):  # 20 positions: four epochs
        batches = [b for rank in range(processes) for b in draw_batches(mixed, config(), step, rank, processes)]
        assert joined(batches, "loss_weights").tolist() == [0.25] * 4
        assert sorted(joined(batches, "timesteps").tolist()) == sorted(
            joined(draw_batches(mixed, config(), step), "timesteps").tolist()
        )
        for batch in batches:
            assert batch.noise.shape == batch.latents.shape
            seen += batch.latents[:, 0, 0, 0].int().tolist()
    assert Counter(seen) == dict.fromkeys(range(5), 4)
