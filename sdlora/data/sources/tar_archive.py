"""A tar archive, plain or packed, listed by going through it once and read by position.

Members are read in their order, so in a packed archive every seek goes forward.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from typing import BinaryIO, cast

from sdlora.core.errors import DataError
from sdlora.data.config import DataConfig
from sdlora.data.sources.archive_names import clean_name, name_problem
from sdlora.data.sources.base import Item, UnreadableItemError, refused
from sdlora.data.sources.metadata import MAX_SIDECAR_BYTES, METADATA_NAMES
from sdlora.data.sources.source_file import SourceFile
from sdlora.data.sources.tree import Entry, Listing, is_hidden, is_image, is_mask, speaks_of_images

MAX_HEADER_BYTES = 2**20
"""What a long name or another extended header may take: `tarfile` reads it at once."""

MAX_TEXT_BYTES = 256 * 2**20
"""What all captions of a packed archive may take in memory."""

SMALL_BYTES = 64 * 2**20
"""What unpacks to no more than this is no bomb, whatever its ratio."""

_DAMAGE = (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)


class _BombError(Exception):
    """The archive unpacks to too much."""


class TarArchive:
    """See `sdlora.data.sources.archive.Archive`."""

    def __init__(self, file: SourceFile, config: DataConfig) -> None:
        self._file, self._config = file, config
        self._texts: dict[str, bytes] = {}
        self._packed = _packing(file)
        self.seekable = self._packed is None
        self._stream = self._open()
        try:
            self.listing = self._list()
        except BaseException:
            self.close()
            raise

    def read(self, entry: Entry, size: int) -> bytes:
        if entry.path in self._texts:
            return self._texts[entry.path][:size]
        try:
            self._stream.seek(entry.where)
            content = self._stream.read(min(size, entry.size))
        except _BombError as error:
            raise UnreadableItemError(str(error)) from error
        except _DAMAGE as error:
            raise UnreadableItemError(f"cannot be unpacked: {error}") from error
        if len(content) < min(size, entry.size):
            raise UnreadableItemError("the archive ends before its bytes do")
        return content

    def close(self) -> None:
        self._stream.close()

    def _open(self) -> _Bounded:
        opened = {"gz": gzip.GzipFile, "bz2": bz2.BZ2File, "xz": lzma.LZMAFile}
        file = self._file.open()
        if self._packed is None:
            return _Bounded(file, None, file)
        most = max(SMALL_BYTES, int(self._config.max_archive_ratio * self._file.size))
        if self._packed == "gz":
            return _Bounded(cast("BinaryIO", gzip.GzipFile(fileobj=file)), most, file)
        return _Bounded(cast("BinaryIO", opened[self._packed](file)), most, file)

    def _list(self) -> Listing:
        images: list[Entry | Item] = []
        others: dict[str, Entry] = {}
        seen: set[str] = set()
        number = 0
        try:
            with tarfile.open(fileobj=cast("BinaryIO", self._stream), mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # it would keep every member
                    number += 1
                    if number > self._config.max_archive_members:
                        images.append(refused("…", f"all members after the first {number - 1:,} (max_archive_members)"))
                        break
                    self._sort_in(member, images, others, seen)
        except _BombError as error:
            images.append(refused("…", str(error)))
        except _DAMAGE as error:
            if not number:
                raise DataError(
                    f"data.sources: {self._file.address!r} is no tar archive that can be read: {error}. "
                    "Fetch or pack it anew."
                ) from error
            images.append(refused("…", f"the archive is damaged after {number:,} members: {error}"))
        return Listing(images, others)

    def _sort_in(
        self, member: tarfile.TarInfo, images: list[Entry | Item], others: dict[str, Entry], seen: set[str]
    ) -> None:
        name = clean_name(member.name)
        if member.isdir():
            return
        problem = name_problem(name) or _problem(member)
        if is_hidden(name):
            return
        if problem is None and name in seen:
            problem = "a second member of this name"
        seen.add(name)
        base = name.rpartition("/")[2]
        entry = Entry(name, member.size, f"{self._file.stamp}-{member.offset_data}", member.offset_data)
        if problem:
            images.append(refused(name, problem))
        elif is_image(base):
            images.append(entry)
        elif speaks_of_images(base):
            others[name] = entry
            if self._packed is not None:
                self._keep_text(entry, base)

    def _keep_text(self, entry: Entry, base: str) -> None:
        """To come back for the words or mask of a packed member would be to unpack again all that lies before it."""
        whole = base in METADATA_NAMES or is_mask(base)
        limit = self._config.max_file_bytes if whole else MAX_SIDECAR_BYTES
        room = MAX_TEXT_BYTES - sum(map(len, self._texts.values())) if len(self._texts) % 1000 == 0 else MAX_TEXT_BYTES
        if entry.size <= min(limit, room):
            self._texts[entry.path] = self.read(entry, entry.size)
        elif not is_mask(base):  # slower than a caption is worth; but a mask that is left out would teach wrong things
            self._texts[entry.path] = b""


class _Bounded(io.RawIOBase):
    """A stream that gives up where it has unpacked too much, and that nobody reads too much of at once."""

    def __init__(self, stream: BinaryIO, most: int | None, file: BinaryIO) -> None:
        self._inner, self._most, self._file = stream, most, file

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            raise ValueError("a whole archive is never read at once")
        self._check(self._inner.tell() + size)
        return self._inner.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            self._check(offset)
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._inner.close()
        self._file.close()
        super().close()

    def _check(self, end: int) -> None:
        if self._most is not None and end > self._most:
            raise _BombError(f"the archive unpacks to more than {self._most:,} bytes (max_archive_ratio)")


def _problem(member: tarfile.TarInfo) -> str | None:
    if member.issym() or member.islnk():
        return "a link"
    if not member.isreg():
        return "not a regular file"
    if member.issparse():
        return "a sparse file"
    return None


def _packing(file: SourceFile) -> str | None:
    """By the first bytes, as names lie."""
    with file.open() as stream:
        start = stream.read(6)
    for magic, packing in ((b"\x1f\x8b", "gz"), (b"BZh", "bz2"), (b"\xfd7zXZ\x00", "xz")):
        if start.startswith(magic):
            return packing
    return None
