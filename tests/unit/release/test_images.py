from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from sdlora.release.images import data_uri, file_data_uri
from tests.unit.release.made_record import png


def opened(uri: str | None) -> Image.Image:
    assert uri is not None
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def test_small_images_keep_every_pixel() -> None:
    image = Image.effect_noise((64, 64), 80).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    uri = data_uri(buffer.getvalue())
    assert uri is not None
    assert uri.startswith("data:image/png;base64,")
    assert opened(uri).tobytes() == image.tobytes()


def test_large_images_are_shrunk_to_jpeg() -> None:
    found = opened(data_uri(png(1024), max_side_px=256))
    assert (found.format, found.size) == ("JPEG", (256, 256))


def test_transparency_is_put_on_white() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(buffer, "PNG")
    assert opened(data_uri(buffer.getvalue())).getpixel((4, 4)) == (255, 255, 255)


def test_a_picture_is_shown_upright_and_in_the_colours_that_were_meant() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((40, 20)).save(buffer, "PNG", exif=exif)
    assert opened(data_uri(buffer.getvalue())).size == (20, 40)
    buffer = io.BytesIO()
    Image.new("I;16", (8, 8), 32768).save(buffer, "PNG")
    assert opened(data_uri(buffer.getvalue())).getpixel((4, 4)) == (128, 128, 128)


def test_formats_that_are_programs_are_not_opened(monkeypatch) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "EPS")
    started = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: started.append(1) or Image.new("RGB", (8, 8)).im)
    assert data_uri(buffer.getvalue()) is None
    assert not started


def test_unreadable_bytes_and_missing_files_give_none(tmp_path: Path) -> None:
    assert data_uri(b"") is None
    assert data_uri(b"<svg onload=alert(1)>") is None
    assert data_uri(png()[:40]) is None
    assert file_data_uri(tmp_path / "missing.png") is None


def test_a_decompression_bomb_is_not_decoded(monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert data_uri(png(11)) is None  # 121 pixels: Pillow alone would warn and decode
