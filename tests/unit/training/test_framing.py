from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from sdlora.core.errors import TrainingError
from sdlora.data.snapshot import SnapshotRow
from sdlora.models.families import family_of
from sdlora.store.image_store import ImageStore
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.inputs.encoded import Encoding, encode_rows
from sdlora.training.inputs.framing import bucket_sizes, centre_framing, nearest_bucket
from sdlora.training.job import TrainingJob
from tests.unit.training.setting import CONFIG, LORA, as_snapshot

CPU = torch.device("cpu")


@given(resolution=st.integers(1, 16), multiple=st.sampled_from([8, 16, 32, 64]))
def test_buckets_have_at_most_the_squares_area_and_sides_that_fit(resolution, multiple):
    side = resolution * multiple
    sizes = bucket_sizes(side, multiple)
    assert (side, side) in sizes
    for height, width in sizes:
        assert height * width <= side**2
        assert height % multiple == width % multiple == 0
        assert max(height, width) <= 2 * min(height, width)
        assert (width, height) in sizes


def test_the_buckets_of_stable_diffusion_1_are_those_worked_by_hand():
    # 512 x 512 in steps of 64; 704 x 320 would be longer than 2 to 1.
    wanted = {(512, 512), (576, 448), (448, 576), (640, 384), (384, 640)}
    assert set(bucket_sizes(512, 64)) == wanted


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ((64, 64), (64, 64)),
        ((480, 480), (64, 64)),
        ((100, 160), (48, 80)),
        ((160, 100), (80, 48)),
        ((50, 500), (48, 80)),
    ],
)
def test_an_image_goes_to_the_bucket_of_its_proportions(image, expected):
    assert nearest_bucket(image, bucket_sizes(64, 16)) == expected


def test_a_framing_tells_the_original_size_and_what_was_cropped():
    framing = centre_framing((100, 300), (64, 128))
    assert (framing.original_px, framing.target_px) == ((100, 300), (64, 128))
    assert framing.crop_px == (0, 32)  # scaled by 0.64 to 64 x 192


@pytest.fixture
def unlike(tmp_path):
    """Nine images of three proportions, one of them alone in its bucket; red on the left, blue on the right."""
    sizes = [(64, 64)] * 5 + [(96, 60)] * 3 + [(60, 96)]
    with ImageStore.open(tmp_path / "home") as store:
        rows = []
        for index, size in enumerate(sizes):
            image = Image.new("RGB", size, (0, 0, 20 * index))
            ImageDraw.Draw(image).rectangle((0, 0, size[0] // 2, size[1]), fill=(200, 0, 0))
            path = tmp_path / "image.png"
            image.save(path)
            sha256 = store.dataset("icons").add_image(path.read_bytes(), (f"picture {index}",))
            rows.append(SnapshotRow(sha256, (f"picture {index}",), "held_out" if index in (3, 4, 6) else "train"))
        yield store, as_snapshot(rows)


def test_latents_have_the_shape_of_their_bucket_and_the_caches_tell_sizes_apart(base, unlike):
    store, snapshot = unlike
    encoded = encode_rows(base, snapshot.rows, store, Encoding((64, 48), aspect_buckets=True, mirror=True), device=CPU)
    shapes = [sorted({shape[1:] for shape in of_view}) for of_view in encoded.shapes()]
    assert shapes == [[(12, 20), (16, 16), (20, 12)], [(8, 16), (12, 12), (16, 8)]]
    for resolution in encoded.resolutions:
        for digest, latents in resolution.latents.items():
            assert resolution.mirrored[digest].shape == latents.shape
            assert not torch.equal(resolution.mirrored[digest], latents)
    squares = encode_rows(base, snapshot.rows, store, Encoding((64,)), device=CPU)
    assert {tuple(latents.shape[1:]) for latents in squares.resolutions[0].latents.values()} == {(16, 16)}


def test_a_run_on_buckets_and_two_resolutions_trains_on_every_image(base, unlike, run_folder):
    store, snapshot = unlike
    config = CONFIG.model_copy(update={"aspect_buckets": True, "resolutions": (64, 48), "horizontal_flip": True})
    adapter = fine_tune(TrainingJob(base, snapshot, LORA, config, run_folder), store)
    again = fine_tune(TrainingJob(base, snapshot, LORA, config, run_folder / "again"), store)
    assert adapter.digest == again.digest
    squares = fine_tune(TrainingJob(base, snapshot, LORA, CONFIG, run_folder / "squares"), store)
    assert squares.digest != adapter.digest
    assert json.loads((run_folder / "config.json").read_text())["training"]["aspect_buckets"] is True


def test_a_resolution_that_does_not_fit_the_network_is_refused(base, store, snapshot, run_folder):
    multiple = family_of(base.folder).side_multiple_px
    config = CONFIG.model_copy(update={"resolutions": (64, multiple + 1)})
    with pytest.raises(TrainingError, match=rf"training\.resolutions: {multiple + 1} .*multiples of {multiple} px"):
        fine_tune(TrainingJob(base, snapshot, LORA, config, run_folder), store)
