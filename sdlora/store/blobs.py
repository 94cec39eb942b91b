"""Bytes by their SHA-256, in a folder or anything else that fsspec writes."""

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
    """A content-addressed store: `<root>/ab/<sha256>`. A blob appears whole or not at all.

    Args:
        url: a folder, or a URL such as `s3://bucket/blobs`. Keys and endpoint of an object store come from the
            variables of its own client (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...), which also repeats requests that
            failed on the way.

    Raises:
        StorageError: there is no file system for such an address.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs: AbstractFileSystem
        self._root: str
        try:
            self._fs, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise StorageError(
                f"SDLORA_BLOBS_URL = {url}: {error}. Expected a folder or s3://bucket/folder; for S3 the client has to "
                "be installed: pip install 'sdlora[server]'."
            ) from error
        self._local = isinstance(self._fs, LocalFileSystem)
        # Together they name unfinished files as no other writer does.
        self._writer, self._counter = uuid.uuid4().hex, itertools.count()

    def put(self, content: bytes) -> str:
        """Keep `content` and return its SHA-256; bytes that are there already are not written again.

        Raises:
            StorageError: the disk is full or not writable, or the object store refuses; nothing half-written remains
                under a digest.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        if not self.has(sha256, len(content)):
            with self._storage_errors(f"cannot take {len(content)} bytes more", convert_missing=True):
                if self._local:
                    self._put_file(self._path(sha256), content)
                else:
                    self._fs.pipe_file(self._path(sha256), content)  # an object appears when all of it has arrived
        return sha256

    def get(self, sha256: str) -> bytes:
        """The bytes, compared with their digest.

        Raises:
            DataError: the bytes are missing or damaged.
            StorageError: the place cannot be reached.
        """
        try:
            with self._storage_errors(f"does not give the bytes of image {sha256}"):
                content: bytes = self._fs.cat_file(self._path(sha256))
        except FileNotFoundError as error:
            raise DataError(f"{self.url} lacks the bytes of image {sha256}. {_COLLECT_AGAIN}") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DataError(f"{self.url} holds damaged bytes under {sha256}. Delete that file. {_COLLECT_AGAIN}")
        return content

    def has(self, sha256: str, byte_size: int) -> bool:
        """Whether a blob of this digest and size is there. A shorter one, left by a power cut, does not count."""
        try:
            with self._storage_errors(f"does not tell whether it has image {sha256}"):
                path = self._path(sha256)
                # fsspec's own look at a file takes several times as long.
                size: int = os.stat(path).st_size if self._local else self._fs.size(path)  # noqa: PTH116
        except FileNotFoundError:
            return False
        return size == byte_size

    def missing(self, blobs: Iterable[tuple[str, int]]) -> set[str]:
        """Those of the blobs, by SHA-256 and size, that are not there whole."""
        if not self._local:
            return {sha256 for sha256, byte_size in blobs if not self.has(sha256, byte_size)}
        return {sha256 for sha256, byte_size in blobs if _file_size(self._path(sha256)) != byte_size}

    def sweep(self, older_than_seconds: float = 3600.0) -> None:
        """Remove what killed writers of files left unfinished."""
        if not self._local:
            return
        with suppress(OSError), os.scandir(os.path.join(self._root, _PARTIAL)) as entries:  # noqa: PTH118
            for entry in entries:
                if time.time() - entry.stat().st_mtime > older_than_seconds:
                    os.unlink(entry.path)  # noqa: PTH108

    def remove(self, sha256: str) -> None:
        """Delete a blob; to delete one that is not there is no mistake.

        Raises:
            StorageError: it is there and stays there.
        """
        with suppress(FileNotFoundError), self._storage_errors(f"keeps the bytes of image {sha256}"):
            self._fs.rm_file(self._path(sha256))

    def _put_file(self, path: str, content: bytes) -> None:
        partial = f"{self._root}/{_PARTIAL}/{self._writer}-{os.getpid()}-{next(self._counter)}"
        try:
            try:
                _write_file(partial, path, content)
            except FileNotFoundError:  # the first blob in its folder; to ask every time would cost every blob
                for folder in (path, partial):
                    self._fs.makedirs(folder.rpartition("/")[0], exist_ok=True)
                _write_file(partial, path, content)
        except OSError:
            with suppress(OSError):
                self._fs.rm_file(partial)
            raise

    @contextmanager
    def _storage_errors(self, failure: str, *, convert_missing: bool = False) -> Iterator[None]:
        """Say what the place could not do. That a blob is not there is for the caller to judge; a folder is not."""
        try:
            yield
        except Exception as error:
            # Clients of object stores raise errors of their own beside OSError.
            missing = isinstance(error, FileNotFoundError) and not convert_missing
            if missing or (self._local and not isinstance(error, OSError)):
                raise
            message = getattr(error, "strerror", None) or error
            remedy = _FREE_SPACE if self._local else _CHECK_SETTINGS
            raise StorageError(f"{self.url} {failure}: {message}. {remedy}") from error

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"  # of the file system, which need not be this machine's


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
_FREE_SPACE = (
    "Free space there, make it writable, or point SDLORA_HOME at another disk; what was recorded before is intact."
)
_CHECK_SETTINGS = (
    "Correct SDLORA_BLOBS_URL and the variables of its client, such as AWS_ENDPOINT_URL and AWS_ACCESS_KEY_ID, and run "
    "again; what was recorded before is intact."
)
