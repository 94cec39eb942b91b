"""Masks that lie beside images, where the loss, the crops and the caches meet them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from sdlora.data.snapshot import SnapshotRow
from sdlora.lora.attach import adapter_parameters, attach_lora
from sdlora.models import parts
from sdlora.models.families import family_of
from sdlora.store.image_store import ImageStore
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.inputs.batches import BatchGroup, draw_step
from sdlora.training.inputs.encoded import Encoding, encode_rows
from sdlora.training.inputs.order import EpochOrder
from sdlora.training.job import TrainingJob
from sdlora.training.learning.loss import DenoisingLoss
from tests.unit.training.setting import CONFIG, LORA, as_snapshot

CPU = torch.device("cpu")
MASKED = CONFIG.model_copy(update={"masked_weight": 0.0, "precision": "fp32", "steps": 2})


@pytest.fixture
def store(tmp_path):
    with ImageStore.open(tmp_path / "home") as opened:
        yield opened


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def light_until(column: int, size: tuple[int, int]) -> bytes:
    """A mask that is white left of a column and black from there on."""
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, column, size[1]))
    return png(mask)


def row_of(store: ImageStore, size: tuple[int, int], mask: bytes, image: Image.Image | None = None) -> SnapshotRow:
    picture = image or Image.radial_gradient("L").resize(size).convert("RGB")
    sha256 = store.dataset("icons").add_image(png(picture), ("",))
    return SnapshotRow(sha256, ("",), "train", mask=store.blobs.put(mask))


def share_of_columns(mask: torch.Tensor) -> float:
    assert torch.equal(mask, mask[:, :1].expand_as(mask))  # alike in all rows
    return mask[0, 0].mean().item()


@pytest.mark.parametrize(
    ("size", "buckets", "share"),
    [
        ((64, 64), False, 24 / 64),
        # The middle 64 of 128 columns are shown: white up to column 48 is white in the first 16 of them.
        ((128, 64), False, 16 / 64),
        # Its bucket of 80 x 48 shows the middle 80 of 96 columns: white up to column 36, of which 8 are cut off.
        ((128, 64), True, 28 / 80),
    ],
)
def test_a_mask_is_scaled_and_cropped_with_its_image(size, buckets, share, base, store):
    column = round(size[0] * 24 / 64)
    rows = [row_of(store, size, light_until(column, size))]
    rows.append(
        replace(row_of(store, size, light_until(column // 2, (size[0] // 2, size[1] // 2))), sha256=rows[0].sha256)
    )
    for row in rows:  # as large as its image, or half as large
        encoded = encode_rows(base, [row], store, Encoding((64,), aspect_buckets=buckets, masks=True), device=CPU)
        mask = encoded.resolutions[0].masks[row.sha256]
        assert mask.shape[1:] == encoded.resolutions[0].latents[row.sha256].shape[1:]
        assert share_of_columns(mask) == pytest.approx(share, abs=0.02)


def test_a_mask_beside_an_image_counts_in_place_of_its_alpha_channel(base, store):
    half = Image.new("RGBA", (64, 64), (200, 30, 30, 255))
    ImageDraw.Draw(half).rectangle((32, 0, 63, 63), fill=(0, 0, 0, 0))
    row = row_of(store, (64, 64), light_until(16, (64, 64)), half)
    resolutions = [
        encode_rows(base, [one], store, Encoding((64,), masks=True), device=CPU).resolutions[0]
        for one in (replace(row, mask=""), row)
    ]
    assert [share_of_columns(resolution.masks[row.sha256]) for resolution in resolutions] == pytest.approx(
        [0.5, 0.25], abs=0.02
    )


def test_an_exchanged_mask_is_read_anew_and_the_latents_are_not_encoded_again(base, store):
    row = row_of(store, (64, 64), light_until(16, (64, 64)))
    other = replace(row, mask=store.blobs.put(light_until(48, (64, 64))))
    told = []
    shares = []
    for one in (row, other, row):
        encoded = encode_rows(
            base, [one], store, Encoding((64,), masks=True), device=CPU, on_progress=lambda *call: told.append(call)
        )
        shares.append(share_of_columns(encoded.resolutions[0].masks[row.sha256]))
    assert shares == pytest.approx([0.25, 0.75, 0.25], abs=0.02)
    assert [call for call in told if call[0] == "encode images"] == [("encode images", 1, 1)]


@pytest.mark.parametrize("flip", [False, True])
def test_gradients_know_nothing_of_what_a_mask_leaves_out(flip, base, store, monkeypatch):
    row = row_of(store, (64, 64), light_until(32, (64, 64)))
    encoded = encode_rows(base, [row], store, Encoding((64,), mirror=True, masks=True), device=CPU)
    loss = DenoisingLoss.of_base(base, 5.0, "fp32", CPU)
    denoiser = attach_lora(parts.load_denoiser(base), LORA)
    tensors = adapter_parameters(denoiser)
    config = MASKED.model_copy(update={"horizontal_flip": True, "batch_size": 1})
    order = EpochOrder(encoded.shapes(), 1, 0)
    side = 64 // family_of(base.folder).latent_reduction
    right = torch.arange(side) >= side // 2 + 1
    left = torch.arange(side) < side // 2 - 1

    def drawn(mirrored: bool):
        for step in range(32):
            (batch,) = draw_step([BatchGroup(encoded, order)], config, step, loss.objective)
            if torch.equal(batch.latents[0], encoded.resolutions[0].mirrored[row.sha256]) == mirrored:
                return batch
        raise AssertionError("never drawn")

    def gradients(batch, wrong: torch.Tensor):
        denoiser.zero_grad()
        target = type(loss.objective).target
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(loss.objective), "target", lambda *rest: target(*rest) + 9.0 * wrong)
            loss.weighted(denoiser, batch).backward()
        return torch.cat([tensor.grad.flatten() for tensor in tensors.values()])

    batch = drawn(mirrored=flip)
    hidden, shown = (left, right) if flip else (right, left)
    honest = gradients(batch, torch.zeros(side))
    assert honest.abs().max() > 0
    assert torch.equal(gradients(batch, hidden.float()), honest)
    assert not torch.allclose(gradients(batch, shown.float()), honest)
    unmasked = replace(batch, position_weights=None)
    assert not torch.allclose(gradients(unmasked, hidden.float()), gradients(unmasked, torch.zeros(side)))


def test_lost_bytes_of_a_mask_cost_one_image_and_never_train_it_whole(base, store):
    rows = [row_of(store, (64, 64), light_until(16, (64, 64))), row_of(store, (60, 64), light_until(16, (60, 64)))]
    store.blobs.remove(rows[0].mask)
    encoded = encode_rows(base, rows, store, Encoding((64,), masks=True), device=CPU)
    assert [row.sha256 for row in encoded.rows] == [rows[1].sha256]
    assert f"the mask {rows[0].mask[:12]} of image {rows[0].sha256[:12]}" in encoded.skipped[rows[0].sha256]
    assert len(encode_rows(base, rows, store, Encoding((64,), masks=False), device=CPU).rows) == 2


def test_masks_change_what_is_learnt_and_are_spoken_of_where_they_are_not_used(base, store, tmp_path: Path, caplog):
    rows = [row_of(store, (64 + 4 * number, 64), light_until(16, (64 + 4 * number, 64))) for number in range(2)]
    narrow = as_snapshot(rows)
    wide = as_snapshot([replace(row, mask=store.blobs.put(light_until(48, (64, 64)))) for row in rows])
    assert narrow.digest != wide.digest
    learnt = [
        fine_tune(TrainingJob(base, snapshot, LORA, MASKED, tmp_path / str(number)), store).digest
        for number, snapshot in enumerate((narrow, wide))
    ]
    assert learnt[0] != learnt[1]
    assert "masked_weight" not in caplog.text
    unmasked = MASKED.model_copy(update={"masked_weight": None})
    fine_tune(TrainingJob(base, narrow, LORA, unmasked, tmp_path / "unmasked"), store)
    assert "2 images have masks, but without training.masked_weight" in caplog.text
