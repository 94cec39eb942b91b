"""Bytes by their SHA-256, in a folder or anything else that fsspec writes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from sdlora.errors import DataError, StorageError


class BlobStore:
    """A content-addressed store: `<root>/ab/<sha256>`. A blob appears whole or not at all.

    Args:
        url: a folder, or a URL such as `s3://bucket/blobs`.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs: AbstractFileSystem
        self._root: str
        self._fs, self._root = url_to_fs(url)

    def put(self, content: bytes) -> str:
        """Keep `content` and return its SHA-256; bytes that are there already are not written again.

        Raises:
            StorageError: the disk is full or not writable; nothing half-written remains under a digest.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        if self.has(sha256, len(content)):
            return sha256
        path = self._path(sha256)
        partial = f"{path.rpartition('/')[0]}/.partial-{uuid.uuid4().hex}"
        try:
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(partial, content)
            self._fs.mv(partial, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._fs.rm_file(partial)
            raise StorageError(
                f"{self.url} cannot take {len(content)} bytes more: {error.strerror or error}. Free space there, make "
                "it writable, or point SDLORA_HOME at another disk; what was recorded before is intact."
            ) from error
        return sha256

    def get(self, sha256: str) -> bytes:
        """The bytes, compared with their digest.

        Raises:
            DataError: the bytes are missing or damaged.
        """
        try:
            content: bytes = self._fs.cat_file(self._path(sha256))
        except FileNotFoundError as error:
            raise DataError(f"{self.url} lacks the bytes of image {sha256}. {_COLLECT_AGAIN}") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DataError(f"{self.url} holds damaged bytes under {sha256}. Delete that file. {_COLLECT_AGAIN}")
        return content

    def has(self, sha256: str, byte_size: int) -> bool:
        """Whether a blob of this digest and size is there. A shorter one, left by a power cut, does not count."""
        try:
            size: int = self._fs.size(self._path(sha256))
        except FileNotFoundError:
            return False
        return size == byte_size

    def remove(self, sha256: str) -> None:
        """Delete a blob; to delete one that is not there is no mistake.

        Raises:
            StorageError: it is there and stays there.
        """
        with contextlib.suppress(FileNotFoundError):
            try:
                self._fs.rm_file(self._path(sha256))
            except OSError as error:
                if isinstance(error, FileNotFoundError):
                    raise
                raise StorageError(
                    f"{self.url} keeps the bytes of image {sha256}: {error.strerror or error}. Make it writable and "
                    "give the same command again."
                ) from error

    def _path(self, sha256: str) -> str:
        return os.path.join(self._root, sha256[:2], sha256)  # noqa: PTH118  # a path of the file system, not of this machine


_COLLECT_AGAIN = "Collect its source again, or restore the folder from a backup."
