"""Interface of a source: its items, their contents and annotations, and the opener that makes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sdlora.core.errors import DataError
from sdlora.data.config import DataConfig
from sdlora.data.sources.memory import MemoryBudget
from sdlora.data.sources.problems import Problems
from sdlora.store.addresses import redacted_url
from sdlora.store.image_store import ImageStore
from sdlora.store.records import Caption

CAPTION_KEYS = ("text", "caption", "captions", "prompt")
"""Names of caption columns in metadata and datasets, in order of precedence."""

RIGHTS_KEYS = ("source", "licence", "license")

SHOWN_CHARS = 300
"""Characters of a path or reason that a report shows."""

# The list includes formats that cannot be decoded, so that every file a person takes for an image gets a verdict.
IMAGE_SUFFIXES = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .webp .gif .bmp .tif .tiff .avif .jp2 .ppm .pgm .ico .tga .qoi "
    ".heic .heif .svg .jxl .psd".split()
)


class UnreadableItemError(Exception):
    """Failure to read one item. The message is the reason that the report shows."""


@dataclass(frozen=True)
class Content:
    """Bytes of an item.

    Attributes:
        stamp: recorded to recognise the unchanged item in the next pass, if only reading the item gives a stamp.
    """

    data: bytes
    stamp: str | None = None

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class SidecarInfo:
    """Captions, rights and mask that a source has about an image, in a file next to it or a row of metadata.

    Attributes:
        origin: the image's origin according to the source, such as a package or an address.
        mask: path of the image's mask, if metadata name one.
        problems: reasons why something that the source has about the image is left out.
    """

    captions: tuple[Caption, ...] = ()
    origin: str | None = None
    licence: str | None = None
    mask: str | None = None
    problems: tuple[str, ...] = ()

    @property
    def stamp(self) -> str:
        """Digest of all fields."""
        return hashlib.blake2b(repr(astuple(self)).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class MaskFile:
    """Mask of an image: a picture that marks the parts to learn from.

    Attributes:
        path: path within the source.
        stamp: changes when the mask's bytes change.
        read: returns the mask's bytes, or raises UnreadableItemError.
    """

    path: str
    stamp: str | None
    read: Callable[[], bytes]


def already_read(sidecar: SidecarInfo) -> Callable[[], SidecarInfo]:
    """Wrap sidecar information that was read with the item itself, for `Item.sidecar`."""
    return lambda: sidecar


@dataclass(frozen=True)
class Item:
    """Image of a source.

    Attributes:
        path: path within the source, with `/`. It is the same for the same image in every pass.
        stamp: changes when the bytes change, so that an unchanged item is recognised without reading it. None if
            only reading the item shows a change.
        read: takes the recorded stamp and returns the bytes, or None if they are the recorded ones. Raises
            UnreadableItemError or TryLaterError. Called in any thread.
        sidecar: reads the information that the source has about the image, such as a `.txt` of the same name.
        caption_stamp: changes when the sidecar information or the mask changes.
        mask: the image's mask, if the source has one.
        caption_path: path whose folder and file name describe the image; None if they are mere numbers.
        lane: group of items of which only a few are read in parallel, such as the images of one web host.
        read_once: a recorded item is not read again, even if its stamp is unknown.
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
        """Return the item with its path moved under `folder`, as part of a larger source."""
        return replace(self, path=f"{folder}/{self.path}")


@dataclass(frozen=True)
class Source:
    """Collection of images.

    Attributes:
        key: digest of the full address. The address itself is not recorded: the store must not name paths of one
            machine.
        count: number of items; None if it is unknown before the last item.
        items: yields the items in an order that does not depend on the machine.
        workers: maximum number of items read in parallel. With 1, items are read in order.
        per_lane: maximum number of items read in parallel within one lane.
        unmatched: names in the source's metadata that match no image. Complete after the last item.
        problems: what cannot be read of the source and costs no image. Complete after the last item.
        close: closes the source's files and connections.
    """

    name: str
    key: str
    count: int | None
    items: Callable[[], Iterator[Item]]
    workers: int = 1
    per_lane: int | None = None
    unmatched: list[str] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class SourceContext:
    """Settings, and the store into which a source is collected. One source has one context.

    Attributes:
        settle_seconds: age that a local file must have to be whole; younger ones are left for a later pass.
    """

    config: DataConfig
    store: ImageStore
    settle_seconds: float = 0.0

    @cached_property
    def memory(self) -> MemoryBudget:
        """Memory for what the source lists and describes."""
        return MemoryBudget(self.config.max_source_memory_bytes)


Opener = Callable[[str, SourceContext], Source | None]


def shortened(text: str) -> str:
    """Cut a foreign text for a report to `SHOWN_CHARS`, and escape characters that a terminal may not take."""
    return printable(text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…")


def refused_item(path: str, reason: str) -> Item:
    """Return an item whose `read` always raises, so that the report names the item with the reason."""

    def read(_: str | None = None) -> Content:
        raise UnreadableItemError(reason)

    return Item(path=shortened(path), stamp=None, read=read)


def address_key(address: str) -> str:
    """Return the SHA-256 of an address, in hexadecimal."""
    return hashlib.sha256(address.encode("utf-8", "surrogateescape")).hexdigest()


def local_path(uri: str) -> Path | None:
    """Return the local path of a plain path or a `file:` URI; None for other schemes.

    Raises:
        DataError: the address can be no path and no address.
    """
    if "\0" in unquote(uri):
        raise DataError(f"data.sources: {uri!r} has a NUL character, which no path may have. Correct the path.")
    try:
        parts = urlsplit(uri)
        if parts.scheme == "file":
            return Path(unquote(parts.path))
        # A scheme of one letter is a Windows drive. A folder's name may contain a colon.
        if len(parts.scheme) > 1 and "://" in uri:
            return None
        return Path(uri).expanduser()
    except (ValueError, RuntimeError) as error:  # a host such as "[", or the home folder of nobody
        raise DataError(f"data.sources: {uri!r} is no path and no address: {error}. Correct it.") from error


def redacted(uri: str) -> str:
    """Quote an address for a message, without the parts of a remote address that grant access."""
    return repr(uri if local_path(uri) else redacted_url(uri).name)


def printable(path: str) -> str:
    """Escape the characters of a path that a database or a terminal may not take."""
    if path.isascii() and path.isprintable():
        return path
    with suppress(UnicodeEncodeError):  # a name from JSON may hold half a surrogate pair; repr shows it
        path = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in path)


def one_line(text: str) -> str:
    """Join a text into one line without control characters or surplus spaces."""
    text = " ".join(text.split())
    if text.isprintable():
        return text
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def caption_texts(value: object) -> tuple[str, ...]:
    """Return the captions of a metadata field, a string or a list of strings, without empty ones."""
    values = value if isinstance(value, list | tuple) else (value,)
    texts = (one_line(text) for text in values if isinstance(text, str))
    return tuple(text for text in texts if text)


def text_or_none(value: object) -> str | None:
    """Return a string as one line; None for an empty string and for other types."""
    return one_line(value) or None if isinstance(value, str) else None
