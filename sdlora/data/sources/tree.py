"""Trees of files in folders, archives and object stores: images with their annotations (metadata, sidecars, masks)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from sdlora.core.errors import DataError
from sdlora.data.sources.base import (
    IMAGE_SUFFIXES,
    Content,
    Item,
    MaskFile,
    SidecarInfo,
    UnreadableItemError,
    printable,
    refused_item,
)
from sdlora.data.sources.metadata import (
    MAX_SIDECAR_BYTES,
    METADATA_NAMES,
    SIDECAR_SUFFIXES,
    read_metadata,
    read_sidecar,
)

MASK_SUFFIXES = ("-masklabel.png", ".mask.png")
"""Endings of a mask's name, after the image's name without suffix. `-masklabel.png` is OneTrainer's."""


@dataclass(frozen=True)
class Entry:
    """File of a tree.

    Attributes:
        path: relative to the root, with `/`.
        size: in bytes.
        stamp: changes when the bytes change; None if the tree reports nothing of the kind.
        location: the tree's means to find the bytes of the file.
    """

    path: str
    size: int
    stamp: str | None
    location: Any = None


@dataclass(frozen=True)
class Listing:
    """Files of one folder or of a whole archive.

    Attributes:
        images: image files, and items that were refused by their name.
        annotations: metadata files, sidecars and masks by path.
    """

    images: Sequence[Entry | Item]
    annotations: Mapping[str, Entry]


ReadEntry = Callable[[Entry, int], bytes]
"""Reader of an entry, up to a number of bytes. Raises UnreadableItemError."""

FindEntry = Callable[[str], Entry | None]
"""Finder of the entry at any path of the tree. Returns None if there is no file."""


def is_image(name: str) -> bool:
    """Check a file name for an image's suffix; a mask is no image."""
    return name[name.rfind(".") :].lower() in IMAGE_SUFFIXES and not is_mask(name)


def is_mask(name: str) -> bool:
    """Check a file name for a mask's ending."""
    return name.lower().endswith(MASK_SUFFIXES)


def is_hidden(path: str) -> bool:
    """Check a path for a hidden file or folder, or the folder in which macOS archives keep metadata."""
    return any(name.startswith(".") and name != ".." for name in path.split("/")) or path.startswith("__MACOSX/")


def is_annotation(name: str) -> bool:
    """Check a file name for a metadata file, sidecar or mask. All other files that are no images are ignored."""
    return name in METADATA_NAMES or name.endswith(SIDECAR_SUFFIXES) or is_mask(name)


def tree_items(
    listings: Iterator[Listing],
    read: ReadEntry,
    max_file_bytes: int,
    unmatched: list[str],
    find: FindEntry = lambda _: None,
) -> Iterator[Item]:
    """Yield the items of a tree, a folder before its subfolders.

    A folder's metadata describes the images of the folder and its subfolders. Metadata in a subfolder has precedence.

    Args:
        unmatched: receives the names in metadata that match no image, after the last item.
        find: finds the masks that metadata name. Such a mask may be in a folder that comes later.
    Raises:
        DataError: a metadata file cannot be read.
    """
    rows: dict[str, SidecarInfo] = {}
    mask_paths: set[str] = set()
    for listing in listings:
        listed_rows = _metadata(listing.annotations, read, max_file_bytes)
        rows.update(listed_rows)
        mask_paths.update(row.mask for row in listed_rows.values() if row.mask)
        masks = _masks(listing.annotations)
        unused_masks = masks.keys() - {path.rpartition(".")[0] for path in mask_paths}
        for image in listing.images:
            if isinstance(image, Item):
                yield image
            elif image.path not in mask_paths:
                stem = image.path.rpartition(".")[0]
                unused_masks.discard(stem)
                row = rows.pop(image.path, None)
                mask = None
                if row and row.mask:
                    mask = _mask_file(
                        row.mask, find(row.mask) or listing.annotations.get(row.mask), read, max_file_bytes
                    )
                elif stem in masks:
                    mask = _mask_file(masks[stem].path, masks[stem], read, max_file_bytes)
                yield _item(image, row, listing.annotations, mask, read, max_file_bytes)
        for stem in sorted(unused_masks):
            name = printable(stem.rpartition("/")[2])
            yield refused_item(
                masks[stem].path, f"a mask without its image, which would be called {name}.png or the like"
            )
    unmatched.extend(sorted(map(printable, rows)))


def read_within(read: ReadEntry, entry: Entry, limit: int) -> bytes:
    """Read the bytes of an entry, if there are at most `limit`. The listed size is not trusted.

    Raises:
        UnreadableItemError: the entry has more bytes than `limit` or its listed size, or cannot be read.
    """
    if entry.size > limit:
        raise UnreadableItemError(f"{entry.size:,} bytes, more than max_file_bytes = {limit:,}")
    content = read(entry, min(limit, entry.size) + 1)
    if len(content) > entry.size:
        raise UnreadableItemError(f"holds more than the {entry.size:,} bytes that it was listed with")
    return content


def _metadata(annotations: Mapping[str, Entry], read: ReadEntry, limit: int) -> dict[str, SidecarInfo]:
    rows: dict[str, SidecarInfo] = {}
    paths = [path for path in annotations if path.rpartition("/")[2] in METADATA_NAMES]
    for path in sorted(paths, key=lambda path: (path.count("/"), path)):
        folder = PurePosixPath(path).parent
        try:
            content = read_within(read, annotations[path], limit)
        except UnreadableItemError as error:
            raise DataError(
                f"{printable(path)} cannot be read: {error}. Nothing of its folder was collected."
            ) from error
        for name, row in read_metadata(printable(path), content).items():
            rows[str(folder / name)] = replace(row, mask=str(folder / row.mask)) if row.mask else row
    return rows


def _masks(annotations: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return masks by the path of their image without suffix. `MASK_SUFFIXES` has the order of precedence."""
    masks: dict[str, Entry] = {}
    for suffix in reversed(MASK_SUFFIXES):
        masks |= {path[: -len(suffix)]: entry for path, entry in annotations.items() if path.lower().endswith(suffix)}
    return masks


def _mask_file(path: str, entry: Entry | None, read: ReadEntry, limit: int) -> MaskFile:
    def read_mask() -> bytes:
        if entry is None:
            raise UnreadableItemError("there is no such file in the source")
        return read_within(read, entry, limit)

    return MaskFile(printable(path), entry.stamp if entry else None, read_mask)


def _item(
    entry: Entry,
    row: SidecarInfo | None,
    annotations: Mapping[str, Entry],
    mask: MaskFile | None,
    read: ReadEntry,
    limit: int,
) -> Item:
    stem = entry.path.rpartition(".")[0]
    sidecar = next((annotations[name] for suffix in SIDECAR_SUFFIXES if (name := stem + suffix) in annotations), None)
    if row and row.captions:
        sidecar = None
    stamp = row.stamp if row else ""
    if sidecar:
        stamp += f" {sidecar.path[len(stem) :]} {sidecar.stamp}"
    if mask:
        stamp += f" {mask.path.rpartition('/')[2]} {mask.stamp}"
    return Item(
        path=printable(entry.path),
        stamp=entry.stamp,
        read=partial(_content, read, entry, limit),
        sidecar=partial(_sidecar_info, row, sidecar, read),
        caption_stamp=stamp,
        caption_path=entry.path,
        mask=mask,
    )


def _content(read: ReadEntry, entry: Entry, limit: int, _: str | None = None) -> Content:
    return Content(read_within(read, entry, limit), entry.stamp)


def _sidecar_info(row: SidecarInfo | None, sidecar: Entry | None, read: ReadEntry) -> SidecarInfo:
    row = row or SidecarInfo()
    if sidecar is None:
        return row
    try:
        content = read_within(read, sidecar, MAX_SIDECAR_BYTES)
    except UnreadableItemError:  # an unreadable caption is no reason to lose the image
        return row
    info = read_sidecar(sidecar.path[sidecar.path.rfind(".") :], content)
    return SidecarInfo(row.captions or info.captions, row.origin or info.origin, row.licence or info.licence)
