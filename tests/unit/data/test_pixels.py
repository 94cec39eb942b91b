from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from sdlora.core.errors import DataError
from sdlora.data.pixels import load_images_uint8
from sdlora.data.snapshot import SnapshotRow
from sdlora.store.dataset import Dataset
from tests.unit.data.drawing import encoded


def _row(dataset: Dataset, content: bytes) -> SnapshotRow:
    return SnapshotRow(dataset.add_image(content), ("",), "train")


def test_images_become_centre_squares_in_the_order_of_the_rows(dataset: Dataset) -> None:
    wide = Image.new("RGB", (96, 32), "blue")
    wide.paste("red", (32, 0, 64, 32))
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    images = load_images_uint8(dataset.store, [_row(dataset, encoded(wide)), _row(dataset, encoded(clear))], 32)
    assert images.shape == (2, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert images[0, :, 16, 16].tolist() == [255, 0, 0]
    assert images[0, :, 16, 1].tolist() == [255, 0, 0]
    assert (images[1] == 255).all()


def test_pixels_of_the_right_size_are_not_changed(dataset: Dataset) -> None:
    pixels = torch.randint(0, 256, (16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    content = encoded(Image.fromarray(pixels.numpy()))
    assert torch.equal(load_images_uint8(dataset.store, [_row(dataset, content)], 16)[0], pixels.permute(2, 0, 1))


def test_an_image_is_upright(dataset: Dataset) -> None:
    image = Image.new("RGB", (32, 32), "white")
    image.paste("black", (0, 0, 8, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = load_images_uint8(dataset.store, [_row(dataset, encoded(image, exif=exif))], 32)[0]
    assert upright[:, 2, 16].tolist() == [0, 0, 0]
    assert upright[:, 16, 2].tolist() == [255, 255, 255]


def test_an_image_that_cannot_be_decoded_is_named(dataset: Dataset) -> None:
    row = _row(dataset, b"text")
    with pytest.raises(DataError, match=row.sha256):
        load_images_uint8(dataset.store, [row], 32)


def test_no_rows_give_an_empty_batch(dataset: Dataset) -> None:
    assert load_images_uint8(dataset.store, [], 64).shape == (0, 3, 64, 64)


def test_transparent_parts_lie_on_what_the_snapshot_says(dataset: Dataset) -> None:
    row = _row(dataset, encoded(Image.new("RGBA", (64, 64), (255, 0, 0, 0))))
    assert (load_images_uint8(dataset.store, [row], 16) == 255).all()
    blue = load_images_uint8(dataset.store, [replace(row, background="#0000ff")], 16)
    assert blue[0, :, 3, 3].tolist() == [0, 0, 255]
