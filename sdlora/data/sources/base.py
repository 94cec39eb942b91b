"""What a source of images is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sdlora.data.config import DataConfig
from sdlora.store.addresses import redacted_url
from sdlora.store.image_store import ImageStore
from sdlora.store.records import Caption

CAPTION_KEYS = ("text", "caption", "captions", "prompt")
"""Names under which metadata and data sets keep captions, the first one found counts."""

RIGHTS_KEYS = ("source", "licence", "license")

# Also kinds that cannot be decoded: a file that a person takes for an image gets a verdict, not silence.
IMAGE_SUFFIXES = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .webp .gif .bmp .tif .tiff .avif .jp2 .ppm .pgm .ico .tga .qoi "
    ".heic .heif .svg .jxl .psd".split()
)


class UnreadableItemError(Exception):
    """One item's bytes cannot be had; the message says why in words."""


@dataclass(frozen=True)
class Content:
    """An item's bytes, and by what an unchanged item is known next time if only reading tells."""

    data: bytes
    stamp: str | None = None


@dataclass(frozen=True)
class SidecarInfo:
    """Captions, rights and mask that a source has about an image, in a file next to it or a row of metadata.

    Attributes:
        origin: where the source itself says that the image comes from, such as a package or an address.
        mask: path of the picture that says which parts of it count, where metadata name one.
    """

    captions: tuple[Caption, ...] = ()
    origin: str | None = None
    licence: str | None = None
    mask: str | None = None

    @property
    def stamp(self) -> str:
        """Changes when any of it does."""
        return hashlib.blake2b(repr(astuple(self)).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True)
class MaskFile:
    """A picture beside an image that says which parts of it count.

    Attributes:
        path: where in the source.
        stamp: changes when its bytes do.
        read: returns its bytes, or raises UnreadableItemError.
    """

    path: str
    stamp: str | None
    read: Callable[[], bytes]


def already_read(sidecar: SidecarInfo) -> Callable[[], SidecarInfo]:
    """An item's `sidecar` that was read with the item itself."""
    return lambda: sidecar


@dataclass(frozen=True)
class Item:
    """One image of a source.

    Attributes:
        path: where in the source, with `/`; the same for the same image each time.
        stamp: changes when the bytes do, so an unchanged item is known without reading it; None if nothing tells.
        read: given the recorded stamp, returns the bytes, None if they are the recorded ones, or raises
            UnreadableItemError or TryLaterError. Called in any thread.
        sidecar: reads what the source has about the image, such as a `.txt` of the same name.
        caption_stamp: changes when that, or the mask, does.
        mask: of the image, where the source has one.
        caption_path: path whose folder and file name are words about the image; None if they are mere numbers.
        lane: items of one lane are read a few at a time, such as those of one web host.
        read_once: a recorded item is not asked for again, whatever its stamp.
    """

    path: str
    stamp: str | None
    read: Callable[[str | None], Content | None]
    sidecar: Callable[[], SidecarInfo] = SidecarInfo
    caption_stamp: str | None = None
    caption_path: str | None = None
    lane: str | None = None
    mask: MaskFile | None = None
    read_once: bool = False

    def under(self, folder: str) -> Item:
        """The same item as part of a larger source."""
        return replace(self, path=f"{folder}/{self.path}")


@dataclass(frozen=True)
class Source:
    """A collection of images.

    Attributes:
        key: digest of the full address, which is not recorded itself: the store must not name paths of one machine.
        count: number of items; None if only going through them tells.
        items: yields them in an order that does not depend on the machine.
        workers: how many items may be read at the same time. With one they are read in order.
        per_lane: how many of one lane may be.
        unmatched: names that the source's metadata speaks of but that are not there; complete once all items are out.
        close: gives back what the source holds open.
    """

    name: str
    key: str
    count: int | None
    items: Callable[[], Iterator[Item]]
    workers: int = 1
    per_lane: int | None = None
    unmatched: list[str] = field(default_factory=list)
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class SourceContext:
    """The settings, and the store that a source is collected into."""

    config: DataConfig
    store: ImageStore


Opener = Callable[[str, SourceContext], Source | None]


def refused_item(path: str, reason: str) -> Item:
    """An item that will not be read, so that the report names it with the reason."""

    def read(_: str | None = None) -> Content:
        raise UnreadableItemError(reason)

    return Item(path=printable(path), stamp=None, read=read)


def address_key(address: str) -> str:
    return hashlib.sha256(address.encode("utf-8", "surrogateescape")).hexdigest()


def local_path(uri: str) -> Path | None:
    """The path that a plain path or a `file:` URI means; None for other schemes."""
    scheme = urlsplit(uri).scheme
    if scheme == "file":
        return Path(unquote(urlsplit(uri).path))
    # One letter is a Windows drive; a folder may have a colon in its name.
    if len(scheme) > 1 and "://" in uri:
        return None
    return Path(uri).expanduser()


def redacted(uri: str) -> str:
    """An address as messages quote it: whatever grants access to a place elsewhere is left out."""
    return repr(uri if local_path(uri) else redacted_url(uri).name)


def printable(path: str) -> str:
    """A path in letters that every database and terminal takes."""
    if path.isascii() and path.isprintable():
        return path
    with suppress(UnicodeEncodeError):  # names from JSON may hold half a surrogate pair, which repr shows
        path = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in path)


def one_line(text: str) -> str:
    """One line without control characters or surplus spaces."""
    text = " ".join(text.split())
    if text.isprintable():
        return text
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def caption_texts(value: object) -> tuple[str, ...]:
    """Captions of a metadata field: a string or a list of strings; empty ones are left out."""
    values = value if isinstance(value, list | tuple) else (value,)
    texts = (one_line(text) for text in values if isinstance(text, str))
    return tuple(text for text in texts if text)


def text_or_none(value: object) -> str | None:
    return one_line(value) or None if isinstance(value, str) else None
