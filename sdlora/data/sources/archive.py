"""Archives: zip, and tar, plain or compressed with gzip, bzip2 or xz. Archives are read in place, not unpacked to disk.

Captions are found as in a folder, so WebDataset shards (`key.jpg`, `key.txt`, `key.json`) can be read.
A pattern such as `shards/{000..015}.tar` or `shards/*.tar` is one source of many archives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from shlex import quote
from typing import Protocol

from sdlora.core.errors import DataError
from sdlora.data.sources.base import Item, Source, SourceContext, address_key, local_path, refused_item
from sdlora.data.sources.problems import Problems
from sdlora.data.sources.source_file import SourceFile, source_files
from sdlora.data.sources.tree import Entry, Listing, tree_of

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ARCHIVE_SUFFIXES = (".zip", *TAR_SUFFIXES)
_UNPACK_REMEDIES = {
    ".rar": "`unrar x {file} {stem}/` and collect {stem}/",
    ".7z": "`7z x {file} -o{stem}` and collect {stem}/",
    ".tar.zst": "`zstd -d {file}` and collect the .tar",
    ".tzst": "`zstd -d {file} -o {stem}.tar` and collect {stem}.tar",
    ".zst": "`zstd -d {file}` and collect the result",
    ".gz": "`gunzip -k {file}` and collect the result",
}
"""Remedies for the kinds of archives that cannot be read in place, by suffix. The first matching suffix counts."""


class Archive(Protocol):
    """Archive, listed when it was opened. Unless it is `seekable`, reading is fast only in the order of members."""

    listing: Listing
    seekable: bool

    def read(self, entry: Entry, size: int) -> bytes: ...
    def close(self) -> None: ...


def open_archives(uri: str, context: SourceContext) -> Source | None:
    """Open one archive, or all archives that match a pattern; None if the address lacks an archive's suffix.

    An unsafe member is refused with its reason, and the other members are collected. Unsafe are paths that lead out of
    the archive, links, devices, names with control characters, and members that are too large or unpack to too much.

    Raises:
        DataError: nothing is at the address, the file is not an archive, or the archive holds no image.
    """
    lowered = uri.lower()
    if not lowered.endswith(ARCHIVE_SUFFIXES):
        _refuse_other_archives(uri)
        return None
    files = source_files(uri, context.config.url_total_seconds)
    if files is None:  # a folder with the name of an archive
        return None
    archives = _OpenArchives(files, context)
    count = None
    if len(files) == 1:
        count = len(archives.archive(0).listing.images)
        if not count:
            archives.close()
            raise DataError(f"data.sources: no image in the archive {uri!r}. Correct the path.")
    return Source(
        name=files[0].name if len(files) == 1 else uri.rstrip("/").rpartition("/")[2],
        key=address_key(files[0].address if len(files) == 1 else "\n".join(file.address for file in files)),
        count=count,
        items=archives.items,
        unmatched=archives.unmatched,
        problems=archives.problems,
        close=archives.close,
    )


def _refuse_other_archives(uri: str) -> None:
    suffix = next((ending for ending in _UNPACK_REMEDIES if uri.lower().endswith(ending)), None)
    path = local_path(uri)
    if suffix is None or (path and path.is_dir()):
        return
    name = uri.rpartition("/")[2]
    remedy = _UNPACK_REMEDIES[suffix].format(file=quote(name), stem=quote(name[: -len(suffix)]))
    raise DataError(
        f"data.sources: {uri!r} is an archive of a kind that is not read in place; {', '.join(ARCHIVE_SUFFIXES)} are. "
        f"Unpack it: {remedy}."
    )


class _OpenArchives:
    """Archives of one source. Only the last few are open."""

    MAX_OPEN = 2  # items of the previous archive may still wait to be read

    def __init__(self, files: Sequence[SourceFile], context: SourceContext) -> None:
        self.files, self.context = files, context
        self.unmatched: list[str] = []
        self.problems = Problems()
        self._archives: dict[int, Archive] = {}

    def archive(self, index: int) -> Archive:
        if index not in self._archives:
            while len(self._archives) >= self.MAX_OPEN:
                self._archives.pop(min(self._archives)).close()
            file = self.files[index]
            if file.address.lower().endswith(".zip"):
                from sdlora.data.sources.zip_archive import ZipArchive

                self._archives[index] = ZipArchive(file, self.context.config, self.context.memory)
            else:
                from sdlora.data.sources.tar_archive import TarArchive

                self._archives[index] = TarArchive(file, self.context.config, self.context.memory)
        return self._archives[index]

    def items(self) -> Iterator[Item]:
        if len(self.files) == 1:
            yield from self._items(0)
            return
        for index, file in enumerate(self.files):
            try:
                for item in self._items(index):
                    yield item.under(file.name)
            except (DataError, OSError) as error:  # one damaged archive is no reason to lose the others
                yield refused_item(file.name, str(error))

    def close(self) -> None:
        while self._archives:
            self._archives.popitem()[1].close()

    def _items(self, index: int) -> Iterator[Item]:
        archive = self.archive(index)
        entries: dict[str, Entry] = {}
        if archive.seekable:
            entries = {entry.path: entry for entry in archive.listing.images if isinstance(entry, Entry)}
        tree = tree_of(self.context, lambda entry, size: self.archive(index).read(entry, size), entries.get)
        tree.unmatched, tree.problems = self.unmatched, self.problems
        return tree.items(iter((archive.listing,)))
