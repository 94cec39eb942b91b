from __future__ import annotations

import itertools
import random
import struct
import time
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.decoding.decode import decode, decode_rgb
from sdlora.data.measuring.measure import measure
from sdlora.release.data_page import write_data_page
from sdlora.store.dataset import Dataset
from tests.unit.data.damage import damaged, whole_pictures
from tests.unit.data.drawing import drawing, encoded

CONFIG = DataConfig(min_side_px=1)
SECONDS_EACH = 10.0  # of processor time; the slowest takes well under one


def test_the_pictures_are_whole_before_they_are_damaged() -> None:
    for picture in whole_pictures():
        assert decode_rgb(picture).size == (64, 64)


@pytest.mark.parametrize(
    "count", [pytest.param(500, id="500"), pytest.param(10_000, id="10,000", marks=pytest.mark.slow)]
)
def test_damaged_images_are_survived_each_with_a_verdict_and_the_good_ones_are_in(
    dataset: Dataset, folder: Path, count: int
) -> None:
    files = {f"{number:05d}.png": content for number, content in enumerate(itertools.islice(damaged(0), count))}
    good = {f"good-{seed}.png": encoded(drawing(1000 + seed)) for seed in range(10)}
    for name, content in (files | good).items():
        (folder / name).write_bytes(content)
    before = {path.name for path in folder.parent.iterdir()}
    collect(dataset, str(folder), CONFIG)
    report = clean(dataset, CONFIG)
    images = dataset.images()
    assert len(images) == count + 10
    assert report.counts.pending == 0
    assert all(image.verdict and image.reason and image.reason.isprintable() for image in images)
    verdicts = {Path(file).name: image.verdict for image in images for file in image.files}
    assert {verdicts[name] for name in good} == {"accepted"}
    assert report.counts.rejected_by["unreadable"] > count / 4
    assert before == {path.name for path in folder.parent.iterdir()}


@pytest.mark.parametrize(
    "count", [pytest.param(300, id="300"), pytest.param(10_000, id="10,000", marks=pytest.mark.slow)]
)
def test_no_damaged_image_takes_long(count: int) -> None:
    slowest = 0.0
    for content in itertools.islice(damaged(1), count):
        start = time.process_time()
        measured = measure("", content, CONFIG.max_pixels)
        slowest = max(slowest, time.process_time() - start)
        assert measured.problem or measured.pixels_sha256 or measured.scores["pixel_count"] > CONFIG.max_pixels
    assert slowest < SECONDS_EACH


def _with_torn_words(seed: int) -> Iterator[bytes]:
    """Pictures whose EXIF data is damaged, one whose palette is half transparent, and one whose header lies."""
    dice = random.Random(seed)
    exif = Image.Exif()
    exif[0x010E], exif[0x9286] = "a caption", b"UNICODE\0" + "Steps: 20".encode("utf-16-le")
    for number in range(40):
        for kind in ("JPEG", "TIFF"):
            content = bytearray(encoded(drawing(number), kind, exif=exif))
            for _ in range(3):
                place = dice.randrange(20, 140) if kind == "JPEG" else -dice.randrange(1, 200)
                content[place] ^= 1 << dice.randrange(8)
            yield bytes(content)
    yield encoded(drawing(1).quantize(8), transparency=b"\x10\x20")
    yield _png_promising(12_000, 10_000)  # more than Pillow warns of
    lying = bytearray(encoded(drawing(2), "TIFF"))
    place = lying.index(struct.pack("<HHI", 277, 3, 1))  # samples per pixel
    lying[place + 8 : place + 10] = struct.pack("<H", 36611)
    yield bytes(lying)


def test_nothing_that_decoders_remark_on_damaged_files_reaches_the_terminal(
    dataset: Dataset, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pictures = itertools.chain(_with_torn_words(0), itertools.islice(damaged(2), 200))
    for number, content in enumerate(pictures):
        (folder / f"{number:05d}.png").write_bytes(content)
    config = CONFIG.model_copy(update={"max_pixels": 200_000_000})
    with warnings.catch_warnings(record=True, action="always") as heard:
        collect(dataset, str(folder), config)
        clean(dataset, config)
        write_data_page(dataset, config, tmp_path / "page.html", title="Images")
    assert [str(one.message) for one in heard] == []
    assert capfd.readouterr() == ("", "")
    assert dataset.counts().rejected_by["unreadable"] > 20


def test_a_jpeg_of_thousands_of_passes_is_refused_unseen() -> None:
    content = encoded(drawing(1), "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")  # the last pass, over and over
    bomb = content[:start] + content[start:-2] * 3000 + content[-2:]
    decoded = decode(bomb)
    assert decoded.rgb is None
    assert "passes" in decoded.problem
    assert decode(content).rgb is not None


def _png_promising(width: int, height: int) -> bytes:
    """A valid header over the data of a single pixel."""
    content = bytearray(encoded(Image.new("1", (1, 1))))
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def _zip() -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", "text")
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "check", "words"),
    [
        (b"<!doctype html><title>404</title>", "unreadable", "the bytes are text, not a picture"),
        (_zip(), "unreadable", "none of the formats PNG"),
        (b"%PDF-1.7\n\xb5\xb5\0\0" * 20, "unreadable", "the bytes are a PDF, which is not read here; save it as PNG"),
        (b"\0\0\0\x18ftypheic" + bytes(99), "unreadable", "the bytes are HEIC, as phones write it"),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "unreadable", "the bytes are an SVG drawing"),
        (_png_promising(40_000, 40_000), "pixel_count", "1,600,000,000 pixels"),
        (_png_promising(2**31 - 1, 2**31 - 1), "pixel_count", "pixels, more than max_pixels"),
        (_png_promising(30_000, 3_000), "pixel_count", "90,000,000 pixels"),
    ],
    ids=["html", "zip", "pdf", "heic", "svg", "40,000 x 40,000", "largest", "long"],
)
def test_a_file_that_is_not_what_its_name_says_is_told_so(
    dataset: Dataset, folder: Path, content: bytes, check: str, words: str
) -> None:
    (folder / "picture.png").write_bytes(content)
    collect(dataset, str(folder), CONFIG)
    clean(dataset, CONFIG)
    image = dataset.images()[0]
    assert (image.verdict, image.rejected_by) == ("rejected", check)
    assert words in image.reason


def test_a_picture_under_the_name_of_another_format_is_what_it_is(dataset: Dataset, folder: Path) -> None:
    (folder / "drawing.png").write_bytes(encoded(drawing(1), "GIF"))
    (folder / "other.jpg").write_bytes(encoded(drawing(2), "WEBP"))
    collect(dataset, str(folder), CONFIG)
    assert clean(dataset, CONFIG).counts.accepted == 2
    assert {image.format for image in dataset.images()} == {"GIF", "WEBP"}
