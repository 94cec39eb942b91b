"""Captions inside image files: XMP, PNG text, EXIF. They are read from the containers; no pixel is decoded.

Pillow finds text after the pixels of a PNG only by decoding the pixels (docs/experiments.md).
"""

from __future__ import annotations

import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from sdlora.data.sources.base import one_line
from sdlora.store.records import Caption

MAX_TEXT_BYTES = 256 * 2**10
"""Longest text that is read, compressed or not. A longer one is no caption."""

_MAX_CHUNKS = 10_000
_PNG, _TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\x00", b"MM\x00*")
_PNG_XMP = b"XML:com.adobe.xmp"
_PNG_KEYS = {key.encode(): key for key in ("parameters", "Description", "Software")}
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
_RDF, _DC = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}", "{http://purl.org/dc/elements/1.1/}"
_EXIF_POINTER, _IMAGE_DESCRIPTION, _USER_COMMENT = 0x8769, 0x010E, 0x9286

_CAMERA_WORDS = re.compile(
    r"(olympus|minolta) digital camera|sony dsc|samsung( camera pictures)?|kodak digital still camera|dsc\w*|dcim\w*",
    re.I,
)
"""Texts that cameras write into every ImageDescription."""
_CREDIT = re.compile(
    r"©|\(c\) |copyright\b|licen[cs]ed? |all rights reserved|https?://|www\.|credits?:|courtesy |based (on|of|upon) |"
    r"with (\w+ ){0,3}help (from|of|by) |"
    r"(created|made|generated|drawn|designed|exported|converted) (with|using|by|in) |"
    r"(photo|photograph|picture|image|icon|artwork|drawing|design) by ",
    re.I,
)
"""Starts of texts that name an author, a program or a licence and not the content."""
_EXTRA_NETWORK = re.compile(r"<(?:lora|lyco|hypernet):[^>]*>")
_WARNINGS_LOCK = threading.Lock()
_AFTER_PROMPT = re.compile(r"(?:^|\n)(?:Negative prompt:|Steps: \d)")


@dataclass
class _Texts:
    """Fields of a file that may hold captions, still undecoded."""

    xmp: bytes = b""
    exif: bytes = b""
    png: dict[str, str] = field(default_factory=dict)


def embedded_captions(content: bytes) -> tuple[Caption, ...]:
    """Return the captions in XMP, else in PNG text, else in EXIF. A damaged field counts as absent."""
    texts = _texts(content)
    captions = [Caption(text, "xmp") for text in _xmp_captions(texts.xmp)]
    if not captions:
        captions = [Caption(text, "png_text") for text in _png_captions(texts.png)]
    if not captions:
        captions = [Caption(text, "exif") for text in _exif_captions(texts.exif)]
    return tuple(captions)


def prompt_of_parameters(parameters: str) -> str:
    """Return the prompt in AUTOMATIC1111's `parameters`, without the negative prompt and the settings."""
    prompt = parameters[: match.start()] if (match := _AFTER_PROMPT.search(parameters)) else parameters
    return one_line(_EXTRA_NETWORK.sub(" ", prompt)).strip(" ,")


def _texts(content: bytes) -> _Texts:
    if content.startswith(_PNG):
        return _png_texts(content)
    if content.startswith(b"\xff\xd8"):
        return _jpeg_texts(content)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        chunks = dict(_chunks(content, 12, little_endian=True))
        return _Texts(xmp=chunks.get(b"XMP ", b""), exif=chunks.get(b"EXIF", b""))
    return _Texts(exif=content if content.startswith(_TIFF) else b"")


def _jpeg_texts(content: bytes) -> _Texts:
    texts = _Texts()
    for marker, body in _jpeg_segments(content):
        if marker == 0xE1 and body.startswith(_JPEG_XMP):
            texts.xmp = texts.xmp or body[len(_JPEG_XMP) :]
        elif marker == 0xE1 and body.startswith(b"Exif\x00\x00"):
            texts.exif = texts.exif or body
    return texts


def _png_texts(content: bytes) -> _Texts:
    texts = _Texts()
    for kind, body in _chunks(content, 8, little_endian=False):
        if kind == b"eXIf":
            texts.exif = body
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            key, _, payload = body.partition(b"\x00")
            # No other text is unpacked, and each only once: a thousand of them would take memory and time.
            if key == _PNG_XMP and not texts.xmp:
                texts.xmp = _png_text(kind, payload).encode()
            elif key in _PNG_KEYS and _PNG_KEYS[key] not in texts.png:
                texts.png[_PNG_KEYS[key]] = _png_text(kind, payload)
    return texts


def _png_text(kind: bytes, payload: bytes) -> str:
    if kind == b"tEXt":
        return _decode(payload)
    if kind == b"zTXt":
        return _decode(_inflate(payload[1:]))
    is_packed, payload = payload[:1] == b"\x01", payload[2:]
    _, _, payload = payload.partition(b"\x00")  # language
    _, _, text = payload.partition(b"\x00")  # translated keyword
    return _decode(_inflate(text) if is_packed else text)


def _inflate(packed: bytes) -> bytes:
    """Decompress a text; empty if it is damaged or longer than `MAX_TEXT_BYTES`."""
    try:
        unpacker = zlib.decompressobj()
        unpacked = unpacker.decompress(packed, MAX_TEXT_BYTES)
    except zlib.error:
        return b""
    return b"" if unpacker.unconsumed_tail else unpacked


def _chunks(content: bytes, start: int, *, little_endian: bool) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, body) of the chunks of a PNG (length, kind, body, checksum) or RIFF file (kind, length, body)."""
    for _ in range(_MAX_CHUNKS):
        if start + 8 > len(content):
            return
        kind, length = struct.unpack_from("<4sI" if little_endian else ">I4s", content, start)
        if not little_endian:
            kind, length = length, kind
        if length <= MAX_TEXT_BYTES:
            yield kind, content[start + 8 : start + 8 + length]
        start += 8 + length + (length % 2 if little_endian else 4)


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (marker, body) of the segments before the pixels."""
    start = 2
    for _ in range(_MAX_CHUNKS):
        if start + 4 > len(content) or content[start] != 0xFF or content[start + 1] == 0xDA:
            return
        if content[start + 1] == 0xFF:  # fill byte
            start += 1
            continue
        (length,) = struct.unpack_from(">H", content, start + 2)
        yield content[start + 1], content[start + 4 : start + 2 + length]
        start += 2 + length


def _xmp_captions(packet: bytes) -> list[str]:
    """Return `dc:description` (one text per language, the default first), else the words of `dc:subject`."""
    if not packet or len(packet) > MAX_TEXT_BYTES or (b"description" not in packet and b"subject" not in packet):
        return []
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root = fromstring(packet.strip(b"\x00 \r\n\t"), forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError):
        return []
    descriptions = [_described(item.text or "") for item in root.iterfind(f".//{_DC}description//{_RDF}li")]
    descriptions += [_described(node.get(f"{_DC}description", "")) for node in root.iter(f"{_RDF}Description")]
    if any(descriptions):
        return [text for text in descriptions if text]
    subjects = ", ".join(
        filter(None, (one_line(item.text or "") for item in root.iterfind(f".//{_DC}subject//{_RDF}li")))
    )
    return [subjects] if subjects else []


def _png_captions(texts: dict[str, str]) -> list[str]:
    """Return the prompt of `parameters`, else `Description`. ComfyUI's `prompt` and `workflow` are programs.

    Inkscape writes the description of its document, often a template, into every icon that is exported from it. Of 783
    such texts in icon sets 22 describe the icon (docs/experiments.md).
    """
    caption = prompt_of_parameters(texts["parameters"]) if "parameters" in texts else ""
    if not caption and "inkscape" not in texts.get("Software", "").lower():
        caption = _described(texts.get("Description", ""))
    return [caption] if caption and not caption.startswith("{") else []


def _described(text: str) -> str:
    """Return a description in one line; empty if it credits an author, a program or a licence."""
    line = one_line(text)
    return "" if _CREDIT.match(line) else line


def _exif_captions(data: bytes) -> list[str]:
    """Return the prompt that AUTOMATIC1111's program writes into `UserComment`, else `ImageDescription`."""
    if not data:
        return []
    from PIL import Image

    try:
        # Pillow warns of damaged tags. The lock is needed because all threads share the filters of warnings.
        with _WARNINGS_LOCK, warnings.catch_warnings(action="ignore"):
            exif = Image.Exif()
            exif.load(data)
            description, comment = exif.get(_IMAGE_DESCRIPTION), exif.get_ifd(_EXIF_POINTER).get(_USER_COMMENT)
    except Exception:  # noqa: BLE001  # damaged tags can raise any error of struct, bytes and int
        return []
    if isinstance(comment, bytes) and b"S\x00t\x00e\x00p\x00s\x00:" in comment[8 : MAX_TEXT_BYTES + 8]:
        encoding = "utf-16-le" if comment[9:10] == b"\x00" else "utf-16-be"
        text = comment[8 : MAX_TEXT_BYTES + 8].decode(encoding, "ignore")
        if prompt := prompt_of_parameters(text):
            return [prompt]
    if not isinstance(description, str) or len(description) > MAX_TEXT_BYTES:
        return []
    text = _described(
        _decode(description.encode("latin-1", "ignore"))
    )  # Pillow reads bytes as Latin-1; many write UTF-8
    return [] if not text or _CAMERA_WORDS.fullmatch(text) else [text]


def _decode(data: bytes) -> str:
    """Decode UTF-8, else Latin-1, which takes every byte."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
