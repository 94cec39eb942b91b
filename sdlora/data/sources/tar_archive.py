"""Tar archives, plain or compressed: listed in one pass and read by position.

Members are read in their order, so in a compressed archive every seek goes forward.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, cast

from sdlora.core.errors import DataError
from sdlora.data.config import DataConfig
from sdlora.data.sources.base import UnreadableItemError
from sdlora.data.sources.members import UNLISTED_MEMBERS, Member, list_members
from sdlora.data.sources.memory import MemoryBudget
from sdlora.data.sources.metadata import MAX_SIDECAR_BYTES, METADATA_NAMES
from sdlora.data.sources.source_file import SourceFile
from sdlora.data.sources.tree import Entry, is_mask

MAX_HEADER_BYTES = 2**20
"""Largest sum of the headers of one member, such as its long name, and of the headers that describe all members."""

CACHED_SHARE = 0.5
"""Share of the source's memory up to which captions and masks are cached. The names of later members need the rest."""

MAX_GLOBAL_HEADERS = 100
"""Most headers that describe all members. `tarfile` copies them for each member."""

SMALL_ARCHIVE_BYTES = 64 * 2**20
"""Unpacked size below which an archive is no decompression bomb, at any ratio."""


class _BombError(Exception):
    """Refusal of an archive that unpacks to too much."""


class TarArchive:
    """Tar archive; see `sdlora.data.sources.archive.Archive`."""

    def __init__(self, file: SourceFile, config: DataConfig, memory: MemoryBudget) -> None:
        self._file, self._config, self._memory = file, config, memory
        self._cached: dict[str, bytes | str] = {}  # bytes, or the reason why there are none
        used_before = memory.used
        self._compression = _compression_of(file)
        self.seekable = self._compression is None
        self._stream = self._open()
        try:
            self.listing = list_members(self._members(), config.max_archive_members, memory, self._cache_annotation)
        except BaseException:
            self._stream.close()
            raise
        finally:
            self._memory_bytes = memory.used - used_before

    def read(self, entry: Entry, size: int) -> bytes:
        cached = self._cached.get(entry.path)
        if isinstance(cached, str):
            raise UnreadableItemError(cached)
        if cached is not None:
            return cached[:size]
        try:
            self._stream.seek(entry.location)
            content = self._stream.read(min(size, entry.size))
        except _BombError as error:
            raise UnreadableItemError(str(error)) from error
        except Exception as error:  # decompressors and object stores raise errors of their own
            raise UnreadableItemError(f"cannot be unpacked: {error or type(error).__name__}") from error
        if len(content) < min(size, entry.size):
            raise UnreadableItemError("the archive ends before its bytes do")
        return content

    def close(self) -> None:
        self._stream.close()
        self._cached.clear()
        self._memory.give_back(self._memory_bytes)
        self._memory_bytes = 0

    def _open(self) -> _BoundedStream:
        openers = {"bz2": bz2.BZ2File, "xz": lzma.LZMAFile}
        file = self._file.open()
        if self._compression is None:
            return _BoundedStream(file, None, file)
        max_bytes = max(SMALL_ARCHIVE_BYTES, int(self._config.max_archive_ratio * self._file.size))
        if self._compression == "gz":
            return _BoundedStream(cast("BinaryIO", gzip.GzipFile(fileobj=file)), max_bytes, file)
        return _BoundedStream(cast("BinaryIO", openers[self._compression](file)), max_bytes, file)

    def _members(self) -> Iterator[Member]:
        """Yield all members that can be listed. An error that ends the listing becomes the problem of a last member."""
        number, offset, headers = 0, -1, _HeaderStream(self._stream)
        try:
            with tarfile.open(fileobj=cast("BinaryIO", headers), mode="r:") as tar:
                while (info := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every member in memory
                    _check_headers(tar, info, offset)
                    number, offset = number + 1, info.offset
                    headers.begin_member()
                    yield Member(
                        name=info.name,
                        size=info.size,
                        stamp=f"{self._file.stamp}-{info.offset_data}",
                        location=info.offset_data,
                        is_folder=info.isdir(),
                        problem=_problem(info),
                    )
        except _BombError as error:
            yield Member(UNLISTED_MEMBERS, problem=str(error))
        except Exception as error:  # damaged headers and data can raise any error of tarfile and the decompressors
            message = str(error) or type(error).__name__
            if not number:
                raise DataError(
                    f"data.sources: {self._file.address!r} is no tar archive that can be read: {message}. "
                    "Fetch or pack it again."
                ) from error
            yield Member(UNLISTED_MEMBERS, problem=f"the archive is damaged after {number:,} members: {message}")

    def _cache_annotation(self, entry: Entry) -> None:
        """Cache captions and masks of compressed archives: seeking back would unpack everything before them again."""
        if self._compression is None:
            return
        name = entry.path.rpartition("/")[2]
        is_sidecar = name not in METADATA_NAMES and not is_mask(name)
        limit = MAX_SIDECAR_BYTES if is_sidecar else self._config.max_file_bytes
        if entry.size > limit:
            self._cached[entry.path] = f"{entry.size:,} bytes, more than {limit:,}"
        elif not self._memory.take(entry.size, CACHED_SHARE):
            self._cached[entry.path] = f"{self._memory.excess}: unpack the archive, or raise the limit"
        else:
            try:
                self._cached[entry.path] = self.read(entry, entry.size)
            except UnreadableItemError as error:
                self._memory.give_back(entry.size)
                self._cached[entry.path] = str(error)


class _HeaderStream:
    """Archive stream with a limit for `tarfile`, which reads all headers of a member before it returns the member."""

    def __init__(self, stream: _BoundedStream) -> None:
        self._stream, self.seek, self.tell = stream, stream.seek, stream.tell
        self._byte_count = 0

    def begin_member(self) -> None:
        self._byte_count = 0

    def read(self, size: int) -> bytes:
        self._byte_count += size
        if self._byte_count > MAX_HEADER_BYTES:
            raise ValueError(f"a header of {self._byte_count:,} bytes, more than {MAX_HEADER_BYTES:,}")
        return self._stream.read(size)


class _BoundedStream(io.RawIOBase):
    """Stream that raises _BombError after too many unpacked bytes, and refuses to be read whole."""

    def __init__(self, stream: BinaryIO, max_bytes: int | None, file: BinaryIO) -> None:
        self._stream, self._max_bytes, self._file = stream, max_bytes, file

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            raise ValueError("a read without a size would unpack the whole archive")
        self._check(self._stream.tell() + size)
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            self._check(offset)
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        self._file.close()
        super().close()

    def _check(self, end: int) -> None:
        if self._max_bytes is not None and end > self._max_bytes:
            raise _BombError(f"the archive unpacks to more than {self._max_bytes:,} bytes (max_archive_ratio)")


def _check_headers(tar: tarfile.TarFile, member: tarfile.TarInfo, offset: int) -> None:
    """Check a member that follows one at `offset`.

    Raises:
        ValueError: the headers lead backwards, which would never end, or too many describe all members.
    """
    if member.size < 0 or member.offset <= offset:
        raise ValueError("a header leads backwards")
    texts = tar.pax_headers
    if len(texts) > MAX_GLOBAL_HEADERS or sum(len(key) + len(text) for key, text in texts.items()) > MAX_HEADER_BYTES:
        raise ValueError("too many headers that describe all members")


def _problem(member: tarfile.TarInfo) -> str | None:
    if member.issym() or member.islnk():
        return "a link"
    if not member.isreg():
        return "not a regular file"
    if member.issparse():
        return "a sparse file"
    return None


def _compression_of(file: SourceFile) -> str | None:
    """Return the compression by the first bytes: a name can be wrong."""
    with file.open() as stream:
        start = stream.read(6)
    for magic, compression in ((b"\x1f\x8b", "gz"), (b"BZh", "bz2"), (b"\xfd7zXZ\x00", "xz")):
        if start.startswith(magic):
            return compression
    return None
