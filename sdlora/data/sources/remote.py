"""Folders in any store that fsspec reads: `s3://`, `gs://`, `az://`, `hf://`, `sftp://`, `memory://` and more."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from sdlora.core.errors import DataError
from sdlora.data.sources.base import (
    Item,
    Source,
    SourceContext,
    UnreadableItemError,
    address_key,
    local_path,
    redacted,
    refused_item,
)
from sdlora.data.sources.deadline import DeadlineError, call_within
from sdlora.data.sources.source_file import file_system, stamp_of
from sdlora.data.sources.tree import Entry, Listing, is_annotation, is_hidden, is_image, tree_of

T = TypeVar("T")

WORKERS = 16
"""Parallel reads. Each spends most of its time waiting for the network."""

LISTING_DEADLINES = 12
"""Deadlines of an item that listing a folder may take: ten million objects come in ten thousand answers."""

MAX_LATE_READS = 20
"""Consecutive reads without an answer in time, after which the store is not asked for further items."""


def open_remote_folder(uri: str, context: SourceContext) -> Source | None:
    """Open a remote folder; None for a local path.

    Captions are found next to the images and hidden files are skipped, as in a local folder. The store's own driver
    looks up keys and endpoints, for example in AWS_ACCESS_KEY_ID.

    Raises:
        DataError: the driver is not installed, nothing is at the address, or the store cannot be reached.
    """
    if local_path(uri) is not None:
        return None
    if uri.startswith(("http://", "https://")):
        raise DataError(
            f"data.sources: {redacted(uri)} is one page of the web. Put addresses of images into a .txt file, one per "
            "line, and give that file. Download an archive first, and give its path."
        )
    fs, root = file_system(uri)
    driver = _Driver(uri, context.config.url_total_seconds)
    if not driver.call(lambda: fs.isdir(root)):
        actual = "a file, not a folder" if driver.call(lambda: fs.exists(root)) else "nothing there"
        raise DataError(
            f"data.sources: expected a folder of images at {redacted(uri)}, found {actual}. Correct the address."
        )
    root = root.rstrip("/")
    tree = tree_of(
        context, lambda entry, size: driver.read(fs, entry, size), lambda path: _find(fs, root, path, driver)
    )
    return Source(
        name=root.rpartition("/")[2] or uri,
        key=address_key(str(fs.unstrip_protocol(root)).rstrip("/")),
        count=None,
        items=lambda: tree.items(_listings(fs, root, driver)),
        workers=WORKERS,
        unmatched=tree.unmatched,
        problems=tree.problems,
    )


class _Driver:
    """Caller of a store's driver, which may raise any error and may wait for ever.

    Attributes:
        seconds: time for each read of an item.
        late_reads: consecutive reads without an answer in time. Each leaves a thread behind.
    """

    def __init__(self, uri: str, seconds: float) -> None:
        self.uri, self.seconds, self.late_reads = uri, seconds, 0

    def call(self, function: Callable[[], T]) -> T:
        """Call a function of the driver. A failure becomes a DataError that names the address."""
        try:
            return call_within(LISTING_DEADLINES * self.seconds, function)
        except Exception as error:  # drivers raise errors of their own, not only OSError
            raise DataError(
                f"data.sources: {redacted(self.uri)} cannot be listed: {type(error).__name__}: {error}. Check the "
                "address, the network and the keys."
            ) from error

    def read(self, fs: Any, entry: Entry, size: int) -> bytes:
        """Read an entry, up to a number of bytes. A failure becomes an UnreadableItemError."""
        if self.late_reads >= MAX_LATE_READS:
            raise UnreadableItemError(f"the store did not answer {MAX_LATE_READS} times in a row and is skipped")
        try:
            content = call_within(self.seconds, lambda: _read(fs, entry, size))
        except DeadlineError as error:
            self.late_reads += 1
            raise UnreadableItemError(f"not complete after url_total_seconds = {self.seconds:g}") from error
        except Exception as error:  # drivers raise errors of their own, not only OSError
            raise UnreadableItemError(f"{type(error).__name__}: {error}") from error
        self.late_reads = 0
        return content


def _listings(fs: Any, root: str, driver: _Driver) -> Iterator[Listing]:
    """Yield one listing per folder: a folder before its subfolders, in the order of names."""
    pending_folders, any_image = [root], False
    while pending_folders:
        folder = pending_folders.pop()
        images: list[Entry | Item] = []
        annotations: dict[str, Entry] = {}
        folders = []
        try:
            infos = driver.call(partial(fs.ls, folder, detail=True))
        except DataError as error:
            if folder == root:
                raise
            infos, images = [], [refused_item(f"{posixpath.relpath(folder, root)}/", str(error))]
        for info in sorted(infos, key=lambda info: str(info["name"])):
            name = str(info["name"]).rstrip("/")
            path = posixpath.relpath(name, root) if root else name.lstrip("/")
            if is_hidden(path) or path == "." or name == folder:
                continue
            if info.get("type") == "directory":
                folders.append(name)
            elif is_image(name):
                images.append(Entry(path, int(info.get("size") or 0), stamp_of(info), name))
            elif is_annotation(name.rpartition("/")[2]):
                annotations[path] = Entry(path, int(info.get("size") or 0), stamp_of(info), name)
        any_image = any_image or bool(images)
        pending_folders += reversed(folders)
        yield Listing(images, annotations)
    if not any_image:
        raise DataError(f"data.sources: no image in {redacted(driver.uri)}. Correct the address.")


def _find(fs: Any, root: str, path: str, driver: _Driver) -> Entry | None:
    """Return the file at a path; None if there is no such file within the root."""
    if path.startswith("/") or ".." in path.split("/"):
        return None
    try:
        info = driver.call(lambda: fs.info(f"{root}/{path}"))
    except DataError:
        return None
    if info.get("type") == "directory":
        return None
    return Entry(path, int(info.get("size") or 0), stamp_of(info), str(info["name"]))


def _read(fs: Any, entry: Entry, size: int) -> bytes:
    with fs.open(entry.location, "rb", cache_type="none") as file:
        return bytes(file.read(size))
