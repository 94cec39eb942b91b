"""Zip archives: listed by their central directory and read member by member."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator

from sdlora.core.errors import DataError
from sdlora.data.config import DataConfig
from sdlora.data.sources.base import UnreadableItemError
from sdlora.data.sources.members import Member, list_members
from sdlora.data.sources.source_file import SourceFile
from sdlora.data.sources.tree import Entry

SMALL_MEMBER_BYTES = 2**20
"""Unpacked size below which a member is no decompression bomb, at any ratio."""

_ENCRYPTED = 0x1


class ZipArchive:
    """Zip archive; see `sdlora.data.sources.archive.Archive`."""

    seekable = True

    def __init__(self, file: SourceFile, config: DataConfig) -> None:
        self._file = file.open()
        try:
            self._zip = zipfile.ZipFile(self._file)
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
            self._file.close()
            raise DataError(
                f"data.sources: {file.address!r} is no zip archive that can be read: {error}. Fetch or pack it again."
            ) from error
        self._config = config
        self.listing = list_members(self._members(), config.max_archive_members)

    def read(self, entry: Entry, size: int) -> bytes:
        try:
            with self._zip.open(entry.location) as member:
                return member.read(size)
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError, zlib.error) as error:
            raise UnreadableItemError(f"cannot be unpacked: {error}") from error
        except Exception as error:
            # Python's decompressors for bzip2 and LZMA, and object stores, raise errors of their own.
            raise UnreadableItemError(f"cannot be unpacked: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        self._zip.close()
        self._file.close()

    def _members(self) -> Iterator[Member]:
        overlapping = _overlapping(self._zip.infolist())
        for info in self._zip.infolist():
            yield Member(
                name=info.filename,
                size=info.file_size,
                stamp=f"{info.file_size}-{info.CRC:08x}",
                location=info,
                is_folder=info.is_dir(),
                problem=self._problem(info)
                or ("its bytes overlap another member's" if info.header_offset in overlapping else None),
            )

    def _problem(self, info: zipfile.ZipInfo) -> str | None:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind == stat.S_IFLNK:
            return "a link"
        if kind not in (0, stat.S_IFREG):
            return "not a regular file"
        if info.flag_bits & _ENCRYPTED:
            return "encrypted"
        if info.file_size > max(SMALL_MEMBER_BYTES, self._config.max_archive_ratio * info.compress_size):
            return (
                f"{info.compress_size:,} bytes that unpack to {info.file_size:,}, more than "
                f"max_archive_ratio = {self._config.max_archive_ratio:g} times"
            )
        return None


def _overlapping(infos: list[zipfile.ZipInfo]) -> set[int]:
    """Return header offsets of members that begin within another member: few bytes could unpack to many contents."""
    offsets: set[int] = set()
    end = -1
    for info in sorted(infos, key=lambda info: (info.header_offset, -info.compress_size)):
        if info.header_offset < end:
            offsets.add(info.header_offset)
        # The local header has 30 bytes, the name and extra fields. Only the 30 bytes are counted.
        end = max(end, info.header_offset + 30 + info.compress_size)
    return offsets
