"""A zip archive, listed by its central directory and read member by member."""

from __future__ import annotations

import stat
import zipfile
import zlib

from sdlora.core.errors import DataError
from sdlora.data.config import DataConfig
from sdlora.data.sources.archive_names import clean_name, name_problem
from sdlora.data.sources.base import Item, UnreadableItemError, refused
from sdlora.data.sources.source_file import SourceFile
from sdlora.data.sources.tree import Entry, Listing, is_hidden, is_image, speaks_of_images

SMALL_BYTES = 2**20
"""What unpacks to no more than this is no bomb, whatever its ratio."""

_ENCRYPTED = 0x1


class ZipArchive:
    """See `sdlora.data.sources.archive.Archive`."""

    seekable = True

    def __init__(self, file: SourceFile, config: DataConfig) -> None:
        self._file = file.open()
        try:
            self._zip = zipfile.ZipFile(self._file)
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
            self._file.close()
            raise DataError(
                f"data.sources: {file.address!r} is no zip archive that can be read: {error}. Fetch or pack it anew."
            ) from error
        self._config = config
        self.listing = self._list()

    def read(self, entry: Entry, size: int) -> bytes:
        try:
            with self._zip.open(entry.where) as member:
                return member.read(size)
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError, zlib.error) as error:
            raise UnreadableItemError(f"cannot be unpacked: {error}") from error
        except Exception as error:
            # Python's decompressors for bzip2 and LZMA have errors of their own, as have object stores.
            raise UnreadableItemError(f"cannot be unpacked: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        self._zip.close()
        self._file.close()

    def _list(self) -> Listing:
        images: list[Entry | Item] = []
        others: dict[str, Entry] = {}
        seen: set[str] = set()
        overlapping = _overlapping(self._zip.infolist())
        for number, info in enumerate(self._zip.infolist()):
            if number == self._config.max_archive_members:
                rest = len(self._zip.infolist()) - number
                images.append(refused("…", f"{rest:,} members after the first {number:,} (max_archive_members)"))
                break
            name = clean_name(info.filename)
            if info.is_dir():
                continue
            problem = name_problem(name) or self._problem(info)
            if is_hidden(name):
                continue
            if problem is None and info.header_offset in overlapping:
                problem = "its bytes overlap another member's"
            if problem is None and name in seen:
                problem = "a second member of this name"
            seen.add(name)
            base = name.rpartition("/")[2]
            if problem:
                images.append(refused(name, problem))
            elif is_image(base):
                images.append(_entry(name, info))
            elif speaks_of_images(base):
                others[name] = _entry(name, info)
        return Listing(images, others)

    def _problem(self, info: zipfile.ZipInfo) -> str | None:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind == stat.S_IFLNK:
            return "a link"
        if kind not in (0, stat.S_IFREG):
            return "not a regular file"
        if info.flag_bits & _ENCRYPTED:
            return "encrypted"
        if info.file_size > max(SMALL_BYTES, self._config.max_archive_ratio * info.compress_size):
            return (
                f"{info.compress_size:,} bytes that unpack to {info.file_size:,}, more than "
                f"max_archive_ratio = {self._config.max_archive_ratio:g} times"
            )
        return None


def _entry(name: str, info: zipfile.ZipInfo) -> Entry:
    return Entry(name, info.file_size, f"{info.file_size}-{info.CRC:08x}", info)


def _overlapping(infos: list[zipfile.ZipInfo]) -> set[int]:
    """Header offsets of members that begin within another one: such an archive has few bytes and many contents."""
    found: set[int] = set()
    end = -1
    for info in sorted(infos, key=lambda info: (info.header_offset, -info.compress_size)):
        if info.header_offset < end:
            found.add(info.header_offset)
        # The local header is 30 bytes and the name; what may follow it is not counted.
        end = max(end, info.header_offset + 30 + info.compress_size)
    return found
