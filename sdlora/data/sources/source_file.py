"""Files at an address, local or in any store that fsspec reads.

An address may be a pattern of several files: `{000..015}` and `{a,b}`, as in shells and WebDataset, and `*`.
"""

from __future__ import annotations

import glob
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, cast

from sdlora.core.errors import DataError
from sdlora.data.sources.base import local_path, redacted
from sdlora.data.sources.deadline import DeadlineError, call_within

DRIVER_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
"""Packages of the drivers for the usual stores, by scheme. For other schemes, fsspec's message names the package."""

_STAMP_KEYS = ("ETag", "etag", "md5Hash", "checksum", "blob_id", "LastModified", "last_modified", "mtime", "created")

_REMOTE_BUFFER_BYTES = 2**18
"""Bytes of one read. Each read is a call in another thread."""

MAX_ADDRESSES = 100_000
MAX_RANGE_DIGITS = 18
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True)
class SourceFile:
    """File of a source.

    Attributes:
        address: full address, independent of the spelling in the settings.
        stamp: changes when the bytes change.
        size: in bytes.
        open: opens the file for reading.
    """

    name: str
    address: str
    stamp: str
    size: int
    open: Callable[[], BinaryIO]


def source_files(uri: str, seconds: float) -> list[SourceFile] | None:
    """Return the files that match an address or pattern; None if the address is a local folder.

    Args:
        seconds: how long a remote store may take for an answer.
    Raises:
        DataError: no file matches, or the store cannot be reached.
    """
    files: list[SourceFile] = []
    for address in expand_braces(uri):
        path = local_path(address)
        if path is None:
            files += _remote_files(address, seconds)
            continue
        if path.is_dir():
            return None
        paths = [path] if path.exists() or not glob.has_magic(str(path)) else _matching_paths(path)
        files += [_local_file(path) for path in paths]
    if not files:
        raise DataError(f"data.sources: nothing matches {redacted(uri)}. Correct the path.")
    return files


def expand_braces(uri: str) -> list[str]:
    """Expand braces: `x-{08..10}.tar` -> `x-08.tar`, `x-09.tar`, `x-10.tar`. An address without braces is unchanged.

    Raises:
        DataError: the result has more than 100,000 addresses.
    """
    pieces = _BRACES.split(uri)  # text, content of braces, text, ...
    choices = [_choices(piece) if number % 2 else [piece] for number, piece in enumerate(pieces)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MAX_ADDRESSES:
        raise DataError(f"data.sources: {uri!r} expands to {count:,} addresses, expected at most {MAX_ADDRESSES:,}.")
    return ["".join(combination) for combination in product(*choices)]


def file_system(uri: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the path within the file system.

    Raises:
        DataError: the scheme is unknown, its driver is not installed, or the address is malformed.
    """
    from fsspec.core import url_to_fs

    scheme = uri.partition("://")[0]
    try:
        return cast("tuple[Any, str]", url_to_fs(uri))
    except ImportError as error:
        remedy = f"pip install {DRIVER_PACKAGES[scheme]}" if scheme in DRIVER_PACKAGES else str(error)
        raise DataError(f"data.sources: {redacted(uri)} needs a driver that is not installed. Run: {remedy}") from error
    except ValueError as error:
        raise DataError(
            f"data.sources: {redacted(uri)} is of no kind that can be collected: {error}. Give a folder, an archive, a "
            "list of URLs, a dataset, or an address that fsspec reads, such as s3://bucket/folder."
        ) from error


def stamp_of(info: Mapping[str, Any]) -> str | None:
    """Return a stamp of an object that changes when its bytes change; None if the store reports nothing of the kind."""
    stamps = [str(info[key]) for key in _STAMP_KEYS if info.get(key) is not None]
    return f"{info.get('size')}-{stamps[0]}" if stamps else None


def _remote_files(address: str, seconds: float) -> list[SourceFile]:
    fs, path = file_system(address)
    try:
        infos = call_within(
            seconds, lambda: fs.glob(path, detail=True) if glob.has_magic(path) else {path: fs.info(path)}
        )
    except FileNotFoundError as error:
        raise DataError(f"data.sources: there is nothing at {redacted(address)}. Correct the address.") from error
    except Exception as error:  # drivers raise errors of their own, not only OSError
        raise DataError(
            f"data.sources: {redacted(address)} cannot be read: {error}. Check address and rights."
        ) from error
    return [
        SourceFile(
            name=name.rpartition("/")[2],
            address=str(fs.unstrip_protocol(name)),
            stamp=stamp_of(info) or str(info.get("size")),
            size=int(info.get("size") or 0),
            open=partial(_open_remote, fs, name, seconds),
        )
        for name, info in sorted(infos.items())
        if info.get("type") != "directory"
    ]


class _TimedFile(io.RawIOBase):
    """Remote file whose every read has a time limit, because drivers may wait for ever."""

    def __init__(self, file: BinaryIO, seconds: float) -> None:
        self._file, self._seconds = file, seconds

    def readinto(self, buffer: Any) -> int:
        try:
            content = call_within(self._seconds, lambda: self._file.read(len(buffer)))
        except DeadlineError as error:
            raise TimeoutError(str(error)) from error
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


def _open_remote(fs: Any, name: str, seconds: float) -> BinaryIO:
    file = call_within(seconds, lambda: fs.open(name, "rb"))
    return cast("BinaryIO", io.BufferedReader(_TimedFile(file, seconds), _REMOTE_BUFFER_BYTES))


def _matching_paths(pattern: Path) -> list[Path]:
    return sorted(map(Path, glob.glob(str(pattern))))  # noqa: PTH207  # `Path.glob` takes no absolute pattern


def _local_file(path: Path) -> SourceFile:
    try:
        status = path.stat()
        with path.open("rb"):
            pass
    except OSError as error:
        raise DataError(f"data.sources: {str(path)!r} cannot be read: {error.strerror}. Correct the path.") from error
    return SourceFile(
        name=path.resolve().name,
        address=str(path.resolve()),
        stamp=f"{status.st_size}-{status.st_mtime_ns}",
        size=status.st_size,
        open=lambda: path.open("rb"),
    )


def _choices(inside: str) -> list[str]:
    if match := _RANGE.fullmatch(inside):
        if max(map(len, match.groups())) > MAX_RANGE_DIGITS:
            raise DataError(f"data.sources: a range in braces has numbers of more than {MAX_RANGE_DIGITS} digits.")
        first, last = int(match[1]), int(match[2])
        if last - first >= MAX_ADDRESSES:
            raise DataError(f"data.sources: {{{inside}}} expands to more than {MAX_ADDRESSES:,} addresses.")
        width = len(match[1]) if match[1].startswith("0") or len(match[1]) == len(match[2]) else 0
        return [str(number).zfill(width) for number in range(first, last + 1)]
    return inside.split(",") if "," in inside else ["{" + inside + "}"]
