"""Zip archives: listed by their central directory and read member by member."""

from __future__ import annotations

import bz2
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from copy import copy
from typing import IO, BinaryIO, cast

from sdlora.core.errors import DataError
from sdlora.data.config import DataConfig
from sdlora.data.sources.base import UnreadableItemError
from sdlora.data.sources.members import Member, list_members
from sdlora.data.sources.memory import MemoryBudget
from sdlora.data.sources.source_file import SourceFile
from sdlora.data.sources.tree import Entry

SMALL_MEMBER_BYTES = 2**20
"""Unpacked size below which a member is no decompression bomb, at any ratio."""

_ENCRYPTED = 0x1
_SMALL_DIRECTORY_BYTES = 2**17
_PIECE_BYTES = 2**16
_BYTES_PER_DIRECTORY_BYTE = 13
"""Bytes in memory for each byte of the central directory: an entry of 46 bytes becomes an object of 600."""


class ZipArchive:
    """Zip archive; see `sdlora.data.sources.archive.Archive`."""

    seekable = True

    def __init__(self, file: SourceFile, config: DataConfig, memory: MemoryBudget) -> None:
        self._file, self._memory, used_before = file.open(), memory, memory.used
        self._config = config
        try:
            stream = _DirectoryStream(self._file, memory)
            self._zip = zipfile.ZipFile(cast("BinaryIO", stream))
            stream.memory = None  # members have limits of their own
            self.listing = list_members(self._members(), config.max_archive_members, memory)
        except DataError:
            self._file.close()
            raise
        except Exception as error:  # a damaged directory can raise any error of zipfile, struct and bytes
            self._file.close()
            raise DataError(
                f"data.sources: {file.address!r} is no zip archive that can be read: "
                f"{str(error) or type(error).__name__}. Fetch or pack it again."
            ) from error
        finally:
            self._memory_bytes = memory.used - used_before

    def read(self, entry: Entry, size: int) -> bytes:
        try:
            if entry.location.compress_type in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
                return _unpack(self._zip, entry.location, size)
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
        self._memory.give_back(self._memory_bytes)
        self._memory_bytes = 0

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


class _DirectoryStream:
    """File of a zip archive, with a limit for `zipfile`, which reads the whole central directory in one call.

    Attributes:
        memory: None after the directory is read.
    """

    def __init__(self, file: BinaryIO, memory: MemoryBudget) -> None:
        self._file, self.memory = file, cast("MemoryBudget | None", memory)
        self.seek, self.tell, self.seekable, self.close = file.seek, file.tell, file.seekable, file.close

    def read(self, size: int = -1) -> bytes:
        memory = self.memory
        if memory and size > _SMALL_DIRECTORY_BYTES and not memory.take(size * _BYTES_PER_DIRECTORY_BYTE):
            raise DataError(
                f"data.sources: a zip archive has a directory of {size:,} bytes: {memory.excess}. Raise the limit, or "
                "unpack the archive."
            )
        return self._file.read(size)


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int) -> bytes:
    """Unpack at most `size` bytes of a member that is packed by bzip2 or LZMA.

    `zipfile` unpacks all that it has read at once, and forty bytes of bzip2 can become 45 MB.
    """
    packed_info = copy(info)
    packed_info.compress_type, packed_info.file_size = zipfile.ZIP_STORED, info.compress_size
    del packed_info.CRC  # it is of the unpacked bytes
    with archive.open(packed_info) as packed:
        unpacker = bz2.BZ2Decompressor() if info.compress_type == zipfile.ZIP_BZIP2 else _lzma_unpacker(packed, info)
        content = bytearray()
        while len(content) < size and not unpacker.eof:
            piece = packed.read(_PIECE_BYTES) if unpacker.needs_input else b""
            if unpacker.needs_input and not piece:
                break
            content += unpacker.decompress(piece, size - len(content))
    if len(content) == info.file_size < size and zlib.crc32(content) != info.CRC:
        raise zipfile.BadZipFile("its checksum is another one")
    return bytes(content)


def _lzma_unpacker(packed: IO[bytes], info: zipfile.ZipInfo) -> lzma.LZMADecompressor:
    """Read the header of LZMA data in a zip archive: two bytes of version, length, properties and dictionary size."""
    _, length, properties, dictionary_bytes = struct.unpack("<HHBI", packed.read(9))
    packed.read(length - 5)
    lzma1 = {
        "id": lzma.FILTER_LZMA1,
        "lc": properties % 9,
        "lp": properties // 9 % 5,
        "pb": properties // 45,
        "dict_size": max(4096, min(dictionary_bytes, info.file_size)),  # memory for more would never be used
    }
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[lzma1])


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
