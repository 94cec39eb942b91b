"""Trees of files in folders, archives and object stores: images with their annotations (metadata, sidecars, masks)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from sdlora.data.sources.base import (
    IMAGE_SUFFIXES,
    Content,
    Item,
    MaskFile,
    SidecarInfo,
    SourceContext,
    UnreadableItemError,
    printable,
    refused_item,
)
from sdlora.data.sources.memory import MemoryBudget, size_of
from sdlora.data.sources.metadata import (
    MAX_SIDECAR_BYTES,
    METADATA_NAMES,
    SIDECAR_SUFFIXES,
    read_metadata,
    read_sidecar,
)
from sdlora.data.sources.problems import Problems
from sdlora.data.sources.rows import BrokenRow

MASK_SUFFIXES = ("-masklabel.png", ".mask.png")
"""Endings of a mask's name, after the image's name without suffix. `-masklabel.png` is OneTrainer's."""

_ROW_BYTES = 128
"""Bytes of a row's place in the table of rows and in the set of masks."""


@dataclass(frozen=True, slots=True)
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


@dataclass
class Tree:
    """Reader of a tree: its images with the annotations that belong to them.

    Attributes:
        find: finds the masks that metadata name. Such a mask may be in a folder that comes later.
        unmatched: names in metadata that match no image. Complete after the last item.
        problems: lines of metadata that cannot be read.
    """

    read: ReadEntry
    max_file_bytes: int
    memory: MemoryBudget
    find: FindEntry = lambda _: None
    unmatched: list[str] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)
    _rows: dict[str, SidecarInfo] = field(default_factory=dict)

    def items(self, listings: Iterator[Listing]) -> Iterator[Item]:
        """Yield the items of a tree, a folder before its subfolders.

        A folder's metadata describes the images of the folder and its subfolders. Metadata in a subfolder has
        precedence.
        """
        mask_paths: set[str] = set()
        for listing in listings:
            mask_paths |= self._take_metadata(listing.annotations)
            masks = _masks(listing.annotations)
            unused_masks = masks.keys() - {path.rpartition(".")[0] for path in mask_paths}
            for image in listing.images:
                if isinstance(image, Item):
                    yield image
                elif image.path not in mask_paths:
                    stem = image.path.rpartition(".")[0]
                    unused_masks.discard(stem)
                    row = self._rows.pop(image.path, None)
                    if row:
                        self.memory.give_back(_row_size(image.path, row))
                    mask = None
                    if row and row.mask:
                        mask = self._mask_file(row.mask, self.find(row.mask) or listing.annotations.get(row.mask))
                    elif stem in masks:
                        mask = self._mask_file(masks[stem].path, masks[stem])
                    yield self._item(image, row, listing.annotations, mask)
            for stem in sorted(unused_masks):
                name = printable(stem.rpartition("/")[2])
                yield refused_item(
                    masks[stem].path, f"a mask without its image, which would be called {name}.png or the like"
                )
        self.unmatched.extend(sorted(map(printable, self._rows)))
        self.memory.give_back(sum(_row_size(name, row) for name, row in self._rows.items()))
        self._rows.clear()

    def _take_metadata(self, annotations: Mapping[str, Entry]) -> set[str]:
        """Read the metadata files among the annotations; return the paths of the masks that they name."""
        mask_paths: set[str] = set()
        paths = [path for path in annotations if path.rpartition("/")[2] in METADATA_NAMES]
        for path in sorted(paths, key=lambda path: (path.count("/"), path)):
            folder = PurePosixPath(path).parent
            size = annotations[path].size
            if not self.memory.take(size):
                self.problems.add(path, self.memory.excess)
                continue
            try:
                content = read_within(self.read, annotations[path], self.max_file_bytes)
            except UnreadableItemError as error:
                self.problems.add(path, str(error))
                continue
            finally:
                self.memory.give_back(size)
            rows = read_metadata(path, content)
            for row in rows:
                if isinstance(row, BrokenRow):
                    self.problems.add(f"{path}, line {row.number:,}", row.reason)
                    continue
                name, info = row
                name = str(folder / name)
                if info.mask:
                    info = replace(info, mask=str(folder / info.mask))
                if (old := self._rows.pop(name, None)) is not None:
                    self.memory.give_back(_row_size(name, old))
                if not self.memory.take(_row_size(name, info)):
                    rest = sum(1 for _ in rows)
                    self.problems.add(path, f"{rest + 1:,} rows not read: {self.memory.excess}", rest + 1)
                    break
                self._rows[name] = info
                if info.mask:
                    mask_paths.add(info.mask)
        return mask_paths

    def _mask_file(self, path: str, entry: Entry | None) -> MaskFile:
        def read_mask() -> bytes:
            if entry is None:
                raise UnreadableItemError("there is no such file in the source")
            return read_within(self.read, entry, self.max_file_bytes)

        return MaskFile(printable(path), entry.stamp if entry else None, read_mask)

    def _item(
        self, entry: Entry, row: SidecarInfo | None, annotations: Mapping[str, Entry], mask: MaskFile | None
    ) -> Item:
        stem = entry.path.rpartition(".")[0]
        sidecar = next(
            (annotations[name] for suffix in SIDECAR_SUFFIXES if (name := stem + suffix) in annotations), None
        )
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
            read=partial(_content, self.read, entry, self.max_file_bytes),
            sidecar=partial(_sidecar_info, row, sidecar, self.read),
            caption_stamp=stamp,
            caption_path=entry.path,
            mask=mask,
        )


def tree_of(context: SourceContext, read: ReadEntry, find: FindEntry = lambda _: None) -> Tree:
    """Return the reader of a source's tree, with the source's settings and memory."""
    return Tree(read, context.config.max_file_bytes, context.memory, find)


def read_within(read: ReadEntry, entry: Entry, limit: int, limit_name: str = "max_file_bytes") -> bytes:
    """Read the bytes of an entry, if there are at most `limit`. The listed size is not trusted.

    Args:
        limit_name: name of the limit in the error.
    Raises:
        UnreadableItemError: the entry has more bytes than `limit` or its listed size, or cannot be read.
    """
    if entry.size > limit:
        raise UnreadableItemError(f"{entry.size:,} bytes, more than {limit_name} = {limit:,}")
    content = read(entry, min(limit, entry.size) + 1)
    if len(content) > entry.size:
        raise UnreadableItemError(f"holds more than the {entry.size:,} bytes that it was listed with")
    return content


def _row_size(name: str, row: SidecarInfo) -> int:
    """Return the bytes of a row in memory, with its place in the table of rows."""
    texts = [text for text in (row.origin, row.licence, row.mask) if text]
    captions = [value for caption in row.captions for value in (caption, caption.text)]
    return _ROW_BYTES + size_of(name, row, row.captions, row.problems, *row.problems, *captions, *texts)


def _masks(annotations: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return masks by the path of their image without suffix. `MASK_SUFFIXES` has the order of precedence."""
    masks: dict[str, Entry] = {}
    for suffix in reversed(MASK_SUFFIXES):
        masks |= {path[: -len(suffix)]: entry for path, entry in annotations.items() if path.lower().endswith(suffix)}
    return masks


def _content(read: ReadEntry, entry: Entry, limit: int, _: str | None = None) -> Content:
    return Content(read_within(read, entry, limit), entry.stamp)


def _sidecar_info(row: SidecarInfo | None, sidecar: Entry | None, read: ReadEntry) -> SidecarInfo:
    row = row or SidecarInfo()
    if sidecar is None:
        return row
    suffix = sidecar.path[sidecar.path.rfind(".") :]
    try:
        info = read_sidecar(suffix, read_within(read, sidecar, MAX_SIDECAR_BYTES, "a sidecar may have"))
    except UnreadableItemError as error:  # an unreadable caption is no reason to lose the image
        info = SidecarInfo(problems=(str(error),))
    problems = tuple(f"its {suffix}: {problem}" for problem in info.problems)
    return SidecarInfo(
        row.captions or info.captions,
        row.origin or info.origin,
        row.licence or info.licence,
        problems=row.problems + problems,
    )
