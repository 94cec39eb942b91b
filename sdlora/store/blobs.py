"""Blob store: bytes by their SHA-256, in a folder or another file system of fsspec."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from sdlora.core.errors import DataError, StorageError


class BlobStore:
    """Content-addressed store with files `<root>/ab/<sha256>`. Writes are atomic.

    Args:
        url: a folder, or a URL such as `s3://bucket/blobs`. Keys and endpoint of an object store come from the
            variables of its client (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...). The client repeats failed requests.

    Raises:
        StorageError: no file system supports the URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs: AbstractFileSystem
        self._root: str
        try:
            self._fs, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise StorageError(
                f"SDLORA_BLOBS_URL = {url}: {error}. Expected a folder or s3://bucket/folder. For S3, install the "
                "client: pip install 'sdlora[server]'"
            ) from error
        self._local = isinstance(self._fs, LocalFileSystem)
        # Writer and counter give unfinished files unique names.
        self._writer, self._counter = uuid.uuid4().hex, itertools.count()

    def put(self, content: bytes) -> str:
        """Store `content` and return its SHA-256; existing bytes are not written again.

        Raises:
            StorageError: the disk is full or not writable, or the object store refuses. No partial file remains under
                a digest.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        if not self.has(sha256, len(content)):
            with self._storage_errors(f"cannot store {len(content)} bytes", convert_missing=True):
                if self._local:
                    self._put_file(self._path(sha256), content)
                else:
                    self._fs.pipe_file(self._path(sha256), content)  # object stores write atomically
        return sha256

    def get(self, sha256: str) -> bytes:
        """Read the bytes and compare them with their digest.

        Raises:
            DataError: the bytes are missing or damaged.
            StorageError: the store cannot be reached.
        """
        try:
            with self._storage_errors(f"cannot read the bytes of image {sha256}"):
                content: bytes = self._fs.cat_file(self._path(sha256))
        except FileNotFoundError as error:
            raise DataError(f"{self.url} lacks the bytes of image {sha256}. {_COLLECT_AGAIN}") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DataError(f"{self.url} holds damaged bytes under {sha256}. Delete that file. {_COLLECT_AGAIN}")
        return content

    def has(self, sha256: str, byte_size: int) -> bool:
        """Return True if a blob of this digest and size exists. The size excludes files truncated by a power cut."""
        try:
            with self._storage_errors(f"cannot look up image {sha256}"):
                path = self._path(sha256)
                # fsspec's `size` takes several times as long.
                size: int = os.stat(path).st_size if self._local else self._fs.size(path)  # noqa: PTH116
        except FileNotFoundError:
            return False
        return size == byte_size

    def missing(self, blobs: Iterable[tuple[str, int]]) -> set[str]:
        """Return the SHA-256 of the blobs, given as (SHA-256, size), that are missing or truncated."""
        if not self._local:
            return {sha256 for sha256, byte_size in blobs if not self.has(sha256, byte_size)}
        return {sha256 for sha256, byte_size in blobs if _file_size(self._path(sha256)) != byte_size}

    def sweep(self, older_than_seconds: float = 3600.0) -> None:
        """Remove partial files of killed writers."""
        if not self._local:
            return
        with suppress(OSError), os.scandir(os.path.join(self._root, _PARTIAL)) as entries:  # noqa: PTH118
            for entry in entries:
                if time.time() - entry.stat().st_mtime > older_than_seconds:
                    os.unlink(entry.path)  # noqa: PTH108

    def remove(self, sha256: str) -> None:
        """Delete a blob if it exists.

        Raises:
            StorageError: the blob cannot be deleted.
        """
        with suppress(FileNotFoundError), self._storage_errors(f"cannot delete the bytes of image {sha256}"):
            self._fs.rm_file(self._path(sha256))

    def _put_file(self, path: str, content: bytes) -> None:
        partial = f"{self._root}/{_PARTIAL}/{self._writer}-{os.getpid()}-{next(self._counter)}"
        try:
            try:
                _write_file(partial, path, content)
            except FileNotFoundError:  # first blob in its folder; creating folders every time would slow every write
                for folder in (path, partial):
                    self._fs.makedirs(folder.rpartition("/")[0], exist_ok=True)
                _write_file(partial, path, content)
        except OSError:
            with suppress(OSError):
                self._fs.rm_file(partial)
            raise

    @contextmanager
    def _storage_errors(self, failure: str, *, convert_missing: bool = False) -> Iterator[None]:
        """Convert errors to StorageError. FileNotFoundError passes through unless `convert_missing`."""
        try:
            yield
        except Exception as error:
            # Clients of object stores raise other errors than OSError, too.
            missing = isinstance(error, FileNotFoundError) and not convert_missing
            if missing or (self._local and not isinstance(error, OSError)):
                raise
            message = getattr(error, "strerror", None) or error
            remedy = _FREE_SPACE if self._local else _CHECK_SETTINGS
            raise StorageError(f"{self.url} {failure}: {message}. {remedy}") from error

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"  # path in the file system, which may be remote


def _write_file(partial: str, path: str, content: bytes) -> None:
    with open(partial, "wb") as file:  # noqa: PTH123  # several times as fast as through fsspec
        file.write(content)
    os.replace(partial, path)  # noqa: PTH105


def _file_size(path: str) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except FileNotFoundError:
        return None


_PARTIAL = ".partial"
_COLLECT_AGAIN = "Collect its source again, or restore the folder from a backup."
_FREE_SPACE = "Free space there, make it writable, or point SDLORA_HOME at another disk; earlier records are intact."
_CHECK_SETTINGS = (
    "Correct SDLORA_BLOBS_URL and the variables of its client, such as AWS_ENDPOINT_URL and AWS_ACCESS_KEY_ID, and run "
    "again; earlier records are intact."
)
