from __future__ import annotations

import pytest
import torch
from PIL import Image, ImageDraw

from sdlora.data.snapshot import SnapshotRow
from sdlora.models import parts
from sdlora.models.families import family_of
from sdlora.store.image_store import ImageStore
from sdlora.training.inputs.batches import BatchGroup, draw_step
from sdlora.training.inputs.encoded import Encoding, encode_rows
from sdlora.training.inputs.masks import mask_weights
from sdlora.training.inputs.order import EpochOrder
from sdlora.training.learning.loss import DenoisingLoss
from tests.unit.training.setting import CONFIG

CPU = torch.device("cpu")


@pytest.fixture
def encoded(base, tmp_path):
    """One picture whose right half is transparent, and one that is opaque."""
    half = Image.new("RGBA", (64, 64), (200, 30, 30, 255))
    ImageDraw.Draw(half).rectangle((32, 0, 63, 63), fill=(0, 0, 0, 0))
    half.save(tmp_path / "half.png")
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "whole.png")
    with ImageStore.open(tmp_path / "home") as store:
        rows = [
            SnapshotRow(store.dataset("icons").add_image((tmp_path / name).read_bytes(), ("",)), ("",), "train")
            for name in ("half.png", "whole.png")
        ]
        yield encode_rows(base, rows, store, Encoding((64,), mirror=True, masks=True), device=CPU)


def test_the_alpha_channel_becomes_a_mask_at_the_latents_resolution(base, encoded):
    half, whole = (encoded.resolutions[0].masks[row.sha256] for row in encoded.rows)
    side = 64 // family_of(base.folder).latent_reduction
    assert half.shape == whole.shape == (1, side, side)
    assert whole.min() == 1
    assert half[..., : side // 2 - 1].min() > 0.98 and half[..., side // 2 + 1 :].max() < 0.02


def test_weights_have_a_mean_of_one_per_image():
    masks = [torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), torch.ones(1, 2, 2), torch.zeros(1, 2, 2)]
    weights = mask_weights(masks, 0.0)
    assert weights[0].flatten().tolist() == [4.0, 0.0, 0.0, 0.0]
    assert weights[1].flatten().tolist() == weights[2].flatten().tolist() == [1.0] * 4  # nothing to see: all alike
    assert mask_weights(masks, 0.5)[0].flatten().tolist() == pytest.approx([1.6, 0.8, 0.8, 0.8])


def test_what_is_transparent_teaches_nothing_mirrored_or_not(base, encoded):
    loss = DenoisingLoss.of_base(base, None, "fp32", CPU)
    denoiser = parts.load_denoiser(base)
    config = CONFIG.model_copy(update={"masked_weight": 0.0, "horizontal_flip": True, "batch_size": 2})
    order, seen = EpochOrder(encoded.shapes(), 2, 0), set()
    transparent = encoded.rows[0].sha256
    for step in range(8):
        (batch,) = draw_step([BatchGroup(encoded, order)], config, step, loss.objective)
        place = [encoded.rows[one.index].sha256 for one in order.images_of(step)].index(transparent)
        weights = batch.position_weights[place, 0]
        seen.add(bool(weights[:, 0].sum() == 0))  # mirrored: the left half is the transparent one
        latents = encoded.resolutions[0].mirrored if bool(weights[:, 0].sum() == 0) else encoded.resolutions[0].latents
        assert torch.equal(batch.latents[place], latents[transparent])
        outputs = loss.family.predict

        def wrong_where_transparent(*arguments, weights=weights, place=place, outputs=outputs):
            prediction = outputs(*arguments).clone()
            prediction[place] += 100.0 * (weights == 0)
            return prediction

        right = loss.per_image(denoiser, batch)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(loss.family), "predict", lambda _self, *rest, f=wrong_where_transparent: f(*rest))
            assert torch.allclose(loss.per_image(denoiser, batch), right)
    assert seen == {True, False}
