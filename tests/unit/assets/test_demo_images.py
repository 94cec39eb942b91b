from __future__ import annotations

import io
import json
from pathlib import Path

import imagehash
import pytest
from PIL import Image, ImageChops, UnidentifiedImageError

from sdlora.assets import DEMO_FOLDER
from sdlora.assets.demo_images import BadFile, bad_files, batch_of, write_demo_folder

BATCHES = ("first", "later", "bad")


@pytest.fixture(scope="module")
def first() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (DEMO_FOLDER / "first").glob("*.png")}


@pytest.fixture(scope="module")
def made(first: dict[str, bytes]) -> dict[str, BadFile]:
    return {file.name: file for file in bad_files(first)}


def rows_of(batch: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DEMO_FOLDER / batch / "metadata.jsonl").read_text().splitlines()]


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_there_are_enough_images_for_training_and_for_a_second_batch():
    assert len(rows_of("first")) >= 280
    assert 90 <= len(rows_of("later")) <= 140


@pytest.mark.parametrize("batch", BATCHES)
def test_every_file_has_a_row_with_a_caption_and_a_licence_and_every_row_a_file(batch):
    rows = rows_of(batch)
    assert all(row["text"] and row["licence"] and row["source"] for row in rows)
    files = {path.name for path in (DEMO_FOLDER / batch).iterdir()} - {"metadata.jsonl"}
    assert files == {row["file_name"] for row in rows}


@pytest.mark.parametrize("batch", ["first", "later"])
def test_the_images_are_64_pixels_square_and_lie_in_the_batch_that_their_name_says(batch):
    for path in (DEMO_FOLDER / batch).glob("*.png"):
        assert batch_of(path.name) == batch
        with Image.open(path) as image:
            image.load()
            assert (image.size, image.mode) == ((64, 64), "RGB")


def test_the_bad_files_in_the_package_are_made_from_the_images_beside_them(made):
    assert {path.name for path in (DEMO_FOLDER / "bad").iterdir()} == {*made, "metadata.jsonl"}
    for file in made.values():
        shipped = (DEMO_FOLDER / "bad" / file.name).read_bytes()
        if file.name in ("truncated.png", "text.png", "exact-copy.png"):
            assert shipped == file.content
        else:  # Pillow builds differ in how they compress, never in pixels
            assert ImageChops.difference(opened(shipped), opened(file.content)).getbbox() is None


def test_each_bad_file_has_its_fault(made, first):
    with pytest.raises(OSError, match="truncated"):
        opened(made["truncated.png"].content).load()
    with pytest.raises(UnidentifiedImageError):
        opened(made["text.png"].content)
    assert made["exact-copy.png"].content == first[made["exact-copy.png"].made_from]
    assert opened(made["blank.png"].content).getextrema() == ((255, 255),) * 3
    assert opened(made["tiny.png"].content).size == (5, 5)
    assert opened(made["animated.gif"].content).n_frames == 3


def test_the_near_copy_differs_in_bytes_and_pixels_and_yet_looks_the_same(made, first):
    near = made["near-copy.png"]
    original = first[near.made_from]
    assert near.content != original
    assert ImageChops.difference(opened(near.content).resize((64, 64)), opened(original)).getbbox() is not None
    assert imagehash.phash(opened(near.content)) - imagehash.phash(opened(original)) <= 4


def test_writing_the_tree_again_from_its_drawings_changes_nothing(tmp_path: Path, first):
    drawings = first | {path.name: path.read_bytes() for path in (DEMO_FOLDER / "later").glob("*.png")}
    rows = rows_of("first") + rows_of("later")
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "left-over.png").write_bytes(b"")
    write_demo_folder(tmp_path, rows, drawings, (DEMO_FOLDER / "LICENSE").read_text())

    def tree(folder: Path) -> set[str]:
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    assert tree(tmp_path) == tree(DEMO_FOLDER)
    same = [name for name in tree(tmp_path) if not name.startswith("bad/") or name.endswith(".jsonl")]
    assert all((tmp_path / name).read_bytes() == (DEMO_FOLDER / name).read_bytes() for name in same)
