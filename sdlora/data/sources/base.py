"""What a source of images is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sdlora.store import Caption

CAPTION_KEYS = ("text", "caption", "captions", "prompt")
"""Names under which metadata and data sets keep captions, the first one found counts."""


class UnreadableItemError(Exception):
    """One item's bytes cannot be had; the message says why in words."""


@dataclass(frozen=True)
class Item:
    """One image of a source.

    Attributes:
        path: where in the source, with `/`; the same for the same image each time.
        stamp: (bytes, mtime in ns) by which an unchanged item is known without reading it; None if there is no such.
        read: returns the bytes, or raises UnreadableItemError.
        origin: what the source itself says of where the image comes from, such as a package or an address.
    """

    path: str
    stamp: tuple[int, int] | None
    read: Callable[[], bytes]
    captions: tuple[Caption, ...]
    origin: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Source:
    """A collection of images.

    Attributes:
        key: digest of the full address, which is not recorded itself: the store must not name paths of one machine.
        count: number of items.
        items: yields them in an order that does not depend on the machine.
        unmatched: names that the source's metadata speaks of but that are not there.
    """

    name: str
    key: str
    count: int
    items: Callable[[], Iterator[Item]]
    unmatched: tuple[str, ...] = ()


Opener = Callable[[str], Source | None]


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


def tidy(text: str) -> str:
    """One line without control characters or surplus spaces."""
    text = " ".join(text.split())
    if text.isprintable():
        return text
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def caption_texts(value: object) -> tuple[str, ...]:
    """Captions of a metadata field: a string or a list of strings; empty ones are left out."""
    values = value if isinstance(value, list | tuple) else (value,)
    texts = (tidy(text) for text in values if isinstance(text, str))
    return tuple(text for text in texts if text)
