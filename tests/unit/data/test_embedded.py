from __future__ import annotations

import io
import zlib
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.sources.captions import repeats_of
from sdlora.data.sources.embedded import embedded_captions, prompt_of_parameters
from sdlora.store.dataset import Dataset
from tests.unit.data.drawing import drawing, encoded

XMP = """<?xpacket begin="" id="x"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/">
{}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""
DESCRIBED = (
    "<dc:description><rdf:Alt><rdf:li xml:lang='x-default'>a tree &amp; snow</rdf:li></rdf:Alt></dc:description>"
)
TAGGED = "<dc:subject><rdf:Bag><rdf:li>tree</rdf:li><rdf:li>snow</rdf:li></rdf:Bag></dc:subject>"
PARAMETERS = "a red (apple:1.2), <lora:food:0.8>\non a table\nNegative prompt: blurry, bad\nSteps: 20, Sampler: Euler"


def said(content: bytes) -> list[tuple[str, str]]:
    return [(caption.text, caption.origin) for caption in embedded_captions(content)]


def png(**texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text, zip=len(text) > 1000)
    return encoded(drawing(1), pnginfo=info)


def exif(**tags: object) -> Image.Exif:
    found = Image.Exif()
    if "description" in tags:
        found[0x010E] = tags["description"]
    if "comment" in tags:
        found.get_ifd(0x8769)[0x9286] = tags["comment"]
    return found


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_xmp_describes_an_image_of_each_kind(kind: str) -> None:
    options = {"xmp": XMP.format(DESCRIBED + TAGGED).encode()}
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.format(DESCRIBED + TAGGED))
        options = {"pnginfo": info}
    assert said(encoded(drawing(1), kind, **options)) == [("a tree & snow", "xmp")]
    assert said(encoded(drawing(1), "JPEG", xmp=XMP.format(TAGGED).encode())) == [("tree, snow", "xmp")]


def test_of_the_parameters_only_the_prompt_counts_and_of_comfyui_nothing() -> None:
    assert prompt_of_parameters(PARAMETERS) == "a red (apple:1.2), on a table"
    assert said(png(parameters=PARAMETERS)) == [("a red (apple:1.2), on a table", "png_text")]
    assert said(png(prompt='{"3": {"inputs": {}}}', workflow="{}")) == []
    assert said(png(Description="a drawing")) == [("a drawing", "png_text")]
    comment = b"UNICODE\x00" + PARAMETERS.encode("utf-16-be")
    assert said(encoded(drawing(1), "JPEG", exif=exif(comment=comment))) == [("a red (apple:1.2), on a table", "exif")]


def test_exif_describes_an_image_unless_the_camera_wrote_it() -> None:
    content = encoded(drawing(1), "JPEG", exif=exif(description="Caf## in the sun"))
    assert said(content.replace(b"Caf##", "Café".encode())) == [("Café in the sun", "exif")]
    assert said(encoded(drawing(1), "WEBP", exif=exif(description="a cat"))) == [("a cat", "exif")]
    assert said(encoded(drawing(1), "TIFF", exif=exif(description="a cat"))) == [("a cat", "exif")]
    assert said(encoded(drawing(1), "JPEG", exif=exif(description="OLYMPUS DIGITAL CAMERA"))) == []


@pytest.mark.parametrize(
    "credit",
    [
        "Based of Jakub Steiner design",
        "with a HUGE help from Jakub",
        "(c) 2004 Jakub Steiner\n\nCreated with The GIMP",
        "Created with GIMP",
        "Copyright 2020, all rights reserved",
        "https://example.org/icons",
        "Photo by Ana",
    ],
)
def test_credits_are_no_captions(credit: str) -> None:
    assert said(png(Description=credit)) == []
    assert said(encoded(drawing(1), "JPEG", exif=exif(description=credit))) == []
    described = XMP.format(DESCRIBED.replace("a tree &amp; snow", credit) + TAGGED)
    assert said(encoded(drawing(1), "JPEG", xmp=described.encode())) == [("tree, snow", "xmp")]


def test_the_description_of_inkscapes_document_is_no_caption_of_the_icon() -> None:
    assert said(png(Software="www.inkscape.org", Description="mimetypes", Title="Folders!", Comment="x")) == []
    assert said(png(Software="Adobe ImageReady", Description="a photo by the sea")) == [
        ("a photo by the sea", "png_text")
    ]
    assert said(png(Software="www.inkscape.org", parameters="designed by nature")) == [
        ("designed by nature", "png_text")
    ]


def test_text_behind_the_pixels_of_a_png_counts_too() -> None:
    content = png(Description="a drawing")
    start, pixels = content.index(b"tEXt") - 4, content.index(b"IDAT") - 4
    moved = content[:start] + content[pixels:-12] + content[start:pixels] + content[-12:]  # before IEND
    assert moved.index(b"tEXt") > moved.index(b"IDAT")
    assert said(moved) == [("a drawing", "png_text")]


def test_text_that_would_unpack_or_expand_to_too_much_is_not_looked_at() -> None:
    assert said(png(parameters="x" * 50_000_000)) == []
    assert said(png(parameters="x" * 50_000_000, Description="a drawing")) == [("a drawing", "png_text")]
    bomb = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>' + XMP.format(DESCRIBED.replace("tree", "&b;"))
    assert said(encoded(drawing(1), "JPEG", xmp=bomb.encode())) == []


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File")
def test_damaged_headers_say_nothing_and_break_nothing() -> None:
    whole = encoded(drawing(1), "JPEG", xmp=XMP.format(DESCRIBED).encode(), exif=exif(description="a cat"))
    for end in range(0, len(whole), 7):
        said(whole[:end])
    packed = png(parameters="y" * 2000)
    for at in range(0, len(packed), 3):
        said(packed[:at] + b"\xff\xff" + packed[at + 2 :])
    assert zlib.crc32(packed)


def test_no_pixel_is_decoded_for_a_caption(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(drawing(1), "JPEG", exif=exif(description="a cat"))
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("the image was opened"))
    assert said(content) == [("a cat", "exif")]


def test_names_of_kohya_folders_give_repeats_and_a_caption(dataset: Dataset, folder: Path) -> None:
    for name in ("10_sks dog/a.png", "2024_holiday/b.png", "5_cat/c.png"):
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(encoded(drawing(len(name))))
    (folder / "5_cat" / "c.caption").write_text("a cat, asleep")
    collect(dataset, str(folder), DataConfig())
    assert {image.files[0]: image.captions for image in dataset.images()} == {
        "pictures/10_sks dog/a.png": ("sks dog",),
        "pictures/2024_holiday/b.png": ("b",),
        "pictures/5_cat/c.png": ("a cat, asleep",),
    }
    assert (repeats_of("10_sks dog/a.png"), repeats_of("x/3_y/a.png"), repeats_of("2024_x/a.png")) == (10, 3, None)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Käse".encode("utf-16"), "Käse"),
        ("A café in the old town".encode("cp1252"), "A café in the old town"),
        ("\ufeffKäse".encode(), "Käse"),
        ("写真".encode("shift-jis"), "�ʐ^"),
    ],
)
def test_captions_in_other_encodings_are_read_or_marked(
    dataset: Dataset, folder: Path, content: bytes, text: str
) -> None:
    (folder / "a.png").write_bytes(encoded(drawing(1)))
    (folder / "a.txt").write_bytes(content)
    collect(dataset, str(folder), DataConfig())
    assert dataset.images()[0].captions == (text,)


def test_what_is_said_beside_an_image_hides_what_is_inside_until_it_is_gone(dataset: Dataset, folder: Path) -> None:
    (folder / "a.png").write_bytes(png(parameters=PARAMETERS))
    (folder / "a.txt").write_text("from the text file")
    collect(dataset, str(folder), DataConfig())
    assert dataset.images()[0].captions == ("from the text file",)
    (folder / "a.txt").unlink()
    report = collect(dataset, str(folder), DataConfig())
    assert (report.recaptioned, report.bytes_read) == (1, 0)
    assert dataset.images()[0].captions == ("a red (apple:1.2), on a table",)
    assert io.BytesIO(dataset.store.read_bytes(dataset.images()[0].sha256)).read(4) == b"\x89PNG"
