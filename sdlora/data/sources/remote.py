"""Folders in any store that fsspec reads: `s3://`, `gs://`, `az://`, `hf://`, `sftp://`, `memory://` and more."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

from sdlora.core.errors import DataError
from sdlora.data.sources.base import Source, SourceContext, UnreadableItemError, address_key, local_path, redacted
from sdlora.data.sources.source_file import file_system, stamp_of
from sdlora.data.sources.tree import Entry, Listing, is_annotation, is_hidden, is_image, tree_items

WORKERS = 16
"""Parallel reads. Each spends most of its time waiting for the network."""


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
    driver = _Driver(uri)
    if not driver.call(fs.isdir, root):
        actual = "a file, not a folder" if driver.call(fs.exists, root) else "nothing there"
        raise DataError(
            f"data.sources: expected a folder of images at {redacted(uri)}, found {actual}. Correct the address."
        )
    unmatched: list[str] = []
    return Source(
        name=root.rstrip("/").rpartition("/")[2] or uri,
        key=address_key(str(fs.unstrip_protocol(root)).rstrip("/")),
        count=None,
        items=lambda: tree_items(
            _listings(fs, root.rstrip("/"), driver),
            lambda entry, size: _read(fs, entry, size),
            context.config.max_file_bytes,
            unmatched,
            lambda path: _find(fs, root.rstrip("/"), path),
        ),
        workers=WORKERS,
        unmatched=unmatched,
    )


class _Driver:
    """Caller of a store's driver. A failure becomes a DataError that names the address."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def call(self, function: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except Exception as error:  # drivers raise errors of their own, not only OSError
            raise DataError(
                f"data.sources: {redacted(self.uri)} cannot be listed: {type(error).__name__}: {error}. Check the "
                "address, the network and the keys."
            ) from error


def _listings(fs: Any, root: str, driver: _Driver) -> Iterator[Listing]:
    """Yield one listing per folder: a folder before its subfolders, in the order of names."""
    pending_folders, any_image = [root], False
    while pending_folders:
        folder = pending_folders.pop()
        images: list[Entry] = []
        annotations: dict[str, Entry] = {}
        folders = []
        for info in sorted(driver.call(fs.ls, folder, detail=True), key=lambda info: str(info["name"])):
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


def _find(fs: Any, root: str, path: str) -> Entry | None:
    """Return the file at a path; None if there is no such file within the root."""
    if path.startswith("/") or ".." in path.split("/"):
        return None
    try:
        info = fs.info(f"{root}/{path}")
    except Exception:  # noqa: BLE001  # drivers raise errors of their own, not only OSError
        return None
    if info.get("type") == "directory":
        return None
    return Entry(path, int(info.get("size") or 0), stamp_of(info), str(info["name"]))


def _read(fs: Any, entry: Entry, size: int) -> bytes:
    try:
        with fs.open(entry.location, "rb", cache_type="none") as file:
            return bytes(file.read(size))
    except Exception as error:  # drivers raise errors of their own, not only OSError
        raise UnreadableItemError(f"{type(error).__name__}: {error}") from error
