"""A folder of images, with all folders in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from sdlora.data.sources.base import Item, Source, UnreadableItemError, address_key, local_path
from sdlora.data.sources.metadata import METADATA_NAMES, FileMetadata, caption_from_name, read_metadata, read_sidecar
from sdlora.errors import DataError

# Also kinds that cannot be decoded: a file that a person takes for an image gets a verdict, not silence.
IMAGE_SUFFIXES = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .webp .gif .bmp .tif .tiff .avif .jp2 .ppm .pgm .ico .tga .qoi "
    ".heic .heif .svg .jxl .psd".split()
)


def open_folder(uri: str) -> Source | None:
    """A folder by its path.

    Captions come from `metadata.jsonl` or `metadata.csv` in the image's folder or one above it, else from a `.txt` of
    the same name, else from the file name. Hidden files and folders are passed over; folders are not followed
    through symbolic links.

    Raises:
        DataError: there is no such folder, it cannot be read, or no image is in it.
    """
    root = local_path(uri)
    if root is None:
        return None
    if not root.is_dir():
        found = "a file, not a folder" if root.exists() else "nothing there"
        raise DataError(f"data.sources: expected a folder of images at {uri!r}, found {found}. Correct the path.")
    images, others = _list_files(root)
    if not images:
        raise DataError(
            f"data.sources: no image in the folder {uri!r}, found {len(others)} other files. Put files such as .png, "
            ".jpg or .webp there, or correct the path."
        )
    metadata = _all_metadata(root, others)
    name = root.resolve().name or "folder"
    return Source(
        name=name,
        key=address_key(str(root.resolve())),
        count=len(images),
        items=lambda: (_item(root, path, others, metadata) for path in images),
        unmatched=tuple(sorted(metadata.keys() - set(images))),
    )


def _list_files(root: Path) -> tuple[list[str], set[str]]:
    """Images in sorted order, and all other files; as paths relative to the root."""
    images: list[str] = []
    others: set[str] = set()

    def refuse(error: OSError) -> None:
        raise DataError(f"data.sources: {error.filename} cannot be read: {error.strerror}.") from error

    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(folder).relative_to(root)
        for name in names:
            if name.startswith("."):
                continue
            path = (inside / name).as_posix()
            if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
                images.append(path)
            else:
                others.add(path)
    return sorted(images), others


def _all_metadata(root: Path, others: set[str]) -> dict[str, FileMetadata]:
    """What all metadata files say, by path relative to the root; one deeper in the tree knows better."""
    found: dict[str, FileMetadata] = {}
    files = [path for path in others if PurePosixPath(path).name in METADATA_NAMES]
    for path in sorted(files, key=lambda path: (path.count("/"), path)):
        folder = PurePosixPath(path).parent
        found.update((str(folder / name), row) for name, row in read_metadata(root / path).items())
    return found


def _item(root: Path, path: str, others: set[str], metadata: dict[str, FileMetadata]) -> Item:
    row = metadata.get(path, FileMetadata((), None, None))
    stem, _, _ = path.rpartition(".")
    captions = row.captions
    if not captions and f"{stem}.txt" in others:
        captions = read_sidecar(root / f"{stem}.txt")
    shown = os.fsencode(path).decode("utf-8", "backslashreplace")
    try:
        status = (root / path).stat()
        stamp = (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None
    except OSError:
        stamp = None
    return Item(
        path=shown,
        stamp=stamp,
        read=lambda: _read(root / path),
        captions=captions or caption_from_name(PurePosixPath(shown).stem),
        origin=row.source,
        licence=row.licence,
    )


def _read(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnreadableItemError("not a regular file")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableItemError(error.strerror or str(error)) from error
