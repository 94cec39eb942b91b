from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from sdlora.core.errors import DataError
from sdlora.store.dataset import Dataset
from sdlora.store.tables.datasets import SourceTable
from sdlora.store.tables.ratings import GenerationTable
from tests.stores import both_places, opened_dataset


@both_places
def test_an_image_added_twice_is_there_once(dataset: Dataset) -> None:
    first = dataset.add_image(b"the same bytes", ["a red apple"], source="my camera", licence="CC0")
    second = dataset.add_image(b"the same bytes")
    (image,) = dataset.images()
    assert first == second == image.sha256
    assert image.captions == ("a red apple",)
    assert (image.source, image.licence, image.byte_size) == ("my camera", "CC0", 14)
    assert image.verdict is None
    assert image.collected_at.tzinfo is not None


def test_a_moved_store_works_and_holds_no_path_of_its_old_place(tmp_path: Path) -> None:
    with opened_dataset(tmp_path / "here") as dataset:
        sha256 = dataset.add_image(b"bytes", ["a caption"])
    shutil.move(tmp_path / "here", tmp_path / "there")
    with opened_dataset(tmp_path / "there") as dataset:
        assert dataset.store.read_bytes(sha256) == b"bytes"
        assert dataset.image(sha256[:8]).captions == ("a caption",)
    assert str(tmp_path) not in (tmp_path / "there" / "images.db").read_bytes().decode("latin-1")


@both_places
def test_an_edited_caption_stands_before_the_sources_until_it_is_taken_back(dataset: Dataset) -> None:
    sha256 = dataset.add_image(b"bytes", ["what the source says"])
    assert dataset.set_captions(sha256[:10], ["  a   better one ", "another", "another"]).captions == (
        "a better one",
        "another",
    )
    dataset.add_image(b"bytes", ["what the source says now"])
    assert dataset.image(sha256).captions == ("a better one", "another")
    assert dataset.set_captions(sha256, []).captions == ("what the source says now",)


@both_places
def test_images_can_be_searched_and_paged(dataset: Dataset) -> None:
    for number in range(5):
        dataset.add_image(f"{number}".encode(), [f"100% picture {number}"])
    assert [image.captions[0] for image in dataset.images(caption="PICTURE 3")] == ["100% picture 3"]
    assert dataset.images(caption="100_") == []
    assert [image.captions[0][-1] for image in dataset.images(limit=2, offset=1)] == ["1", "2"]
    assert dataset.images("accepted") == []
    assert dataset.counts().pending == dataset.counts().total == 5


@pytest.mark.parametrize("digits", ["", "zz", "%"])
def test_digits_that_fit_no_image_are_refused(dataset: Dataset, digits: str) -> None:
    dataset.add_image(b"one")
    with pytest.raises(DataError, match="first digits"):
        dataset.image(digits)


@both_places
def test_a_failed_transaction_leaves_nothing(dataset: Dataset) -> None:
    with suppress(ZeroDivisionError), dataset.store.write() as session:
        session.add(SourceTable(dataset_id=dataset.id, key="k", name="n"))
        session.flush()
        raise ZeroDivisionError
    with dataset.store.read() as session:
        assert session.query(SourceTable).count() == 0


@both_places
def test_a_generation_is_kept_once_with_its_recipe_and_is_no_training_image(dataset: Dataset) -> None:
    recipe = {"model_version": "7", "prompt": "a cat", "seed": 3, "steps": 20, "guidance_scale": 7.5}
    sha256 = dataset.store.add_generation(b"drawn", **recipe)
    assert dataset.store.add_generation(b"drawn", **recipe) == sha256
    assert dataset.store.read_bytes(sha256) == b"drawn"
    assert dataset.counts().total == 0
    with dataset.store.read() as session:
        rows = session.query(GenerationTable.prompt, GenerationTable.seed, GenerationTable.steps).all()
    assert [tuple(row) for row in rows] == [("a cat", 3, 20)]
