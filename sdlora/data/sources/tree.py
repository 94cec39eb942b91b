"""What folders, archives and object stores have in common: images, and files beside them that speak of them."""

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
"""After an image's name without its suffix: OneTrainer's `name-masklabel.png`, and `name.mask.png`."""


@dataclass(frozen=True)
class Entry:
    """One file of a tree.

    Attributes:
        path: relative to the root, with `/`.
        stamp: changes when the bytes do; None if nothing tells.
        location: what the tree needs to find the bytes again.
    """

    path: str
    size: int
    stamp: str | None
    location: Any = None


@dataclass(frozen=True)
class Listing:
    """Some of a tree's files: a folder's, or all of an archive's. `images` may hold items that were refused by name."""

    images: Sequence[Entry | Item]
    annotations: Mapping[str, Entry]


ReadEntry = Callable[[Entry, int], bytes]
"""The bytes of an entry, at most so many; raises UnreadableItemError."""

FindEntry = Callable[[str], Entry | None]
"""The entry at a path of the tree, wherever in it; None if nothing is there."""


def is_image(name: str) -> bool:
    return name[name.rfind(".") :].lower() in IMAGE_SUFFIXES and not is_mask(name)


def is_mask(name: str) -> bool:
    return name.lower().endswith(MASK_SUFFIXES)


def is_hidden(path: str) -> bool:
    return any(name.startswith(".") and name != ".." for name in path.split("/")) or path.startswith("__MACOSX/")


def is_annotation(name: str) -> bool:
    """Whether it is a metadata file, a sidecar or a mask; of a tree's files that are no images only these matter."""
    return name in METADATA_NAMES or name.endswith(SIDECAR_SUFFIXES) or is_mask(name)


def tree_items(
    listings: Iterator[Listing],
    read: ReadEntry,
    max_file_bytes: int,
    unmatched: list[str],
    find: FindEntry = lambda _: None,
) -> Iterator[Item]:
    """Items of a tree, outer folders before the folders in them.

    Metadata of a folder speaks of the images in it and in the folders in it; one further in knows better.

    Args:
        find: finds the masks that metadata name, which may lie in a folder that comes later.
    Raises:
        DataError: a metadata file cannot be understood.
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
    """The bytes of an entry, unless they are more than `limit`, whatever the tree promised.

    Raises:
        UnreadableItemError: they are, or they cannot be read.
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
    """Masks by the path of their image without its suffix; of two for one image the first kind counts."""
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
    except UnreadableItemError:  # a caption that cannot be read is no reason to lose the image
        return row
    info = read_sidecar(sidecar.path[sidecar.path.rfind(".") :], content)
    return SidecarInfo(row.captions or info.captions, row.origin or info.origin, row.licence or info.licence)
