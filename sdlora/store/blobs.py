"""Blob store: bytes by their SHA-256, in a folder or another file system of fsspec."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Literal

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from sdlora.core.errors import DataError, StorageError
from sdlora.core.files import flush, make_folder


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
        batch = self.batch()
        sha256 = batch.put(content)
        batch.flush()
        return sha256

    def batch(self) -> BlobBatch:
        """Begin a batch of blobs that are flushed together, which is many times as fast as one by one."""
        return BlobBatch(self)

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
            raise DataError(f"{self.address(sha256)} is damaged. Delete that file. {_COLLECT_AGAIN}")
        return content

    def problem(self, sha256: str) -> Literal["missing", "damaged"] | None:
        """Read the bytes and compare them with their digest; return None if they are whole.

        Raises:
            StorageError: an object store cannot be reached.
        """
        try:
            self.get(sha256)
        except DataError as error:
            return "missing" if isinstance(error.__cause__, FileNotFoundError) else "damaged"
        except StorageError:
            if not self._local:
                raise
            return "damaged"  # a file that the disk cannot read
        return None

    def address(self, sha256: str) -> str:
        """Return the path or the URL of a blob."""
        return self._path(sha256) if self._local else f"{self.url.rstrip('/')}/{sha256[:2]}/{sha256}"

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
            asked = list(blobs)
            with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as threads:
                found = threads.map(lambda blob: self.has(*blob), asked)
                return {sha256 for (sha256, _), is_there in zip(asked, found, strict=True) if not is_there}
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

    def _write_partial(self, content: bytes) -> str:
        """Write an unfinished file and return its path."""
        partial = f"{self._root}/{_PARTIAL}/{self._writer}-{os.getpid()}-{next(self._counter)}"
        try:
            try:
                _write_file(partial, content)
            except FileNotFoundError:  # first blob of the store
                make_folder(Path(partial).parent)
                _write_file(partial, content)
        except OSError:
            with suppress(OSError):
                os.unlink(partial)  # noqa: PTH108
            raise
        return partial

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


class BlobBatch:
    """Blobs that are written together. They are in the store, and on the disk, after `flush`.

    Record their digests only after `flush`: a digest in the database then promises the bytes, also after a power cut.
    `put` may be called from several threads.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._lock = Lock()
        self._partials: dict[str, str] = {}  # unfinished file by the path of the blob
        self._folders: set[str] = set()

    def put(self, content: bytes) -> str:
        """Write `content` and return its SHA-256; existing bytes are not written again.

        Raises:
            StorageError: the disk is full or not writable, or the object store refuses.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        store, path = self._store, self._store._path(sha256)
        if path in self._partials:
            return sha256
        is_stored = store.has(sha256, len(content))
        with store._storage_errors(f"cannot store {len(content)} bytes", convert_missing=True):
            if not store._local:
                if not is_stored:
                    store._fs.pipe_file(path, content)  # object stores write atomically and durably
                return sha256
            partial = None if is_stored else store._write_partial(content)
        with self._lock:
            # The writer of a stored blob may have been killed before it flushed the folder.
            self._folders.add(path.rpartition("/")[0])
            if partial is not None:
                self._partials[path] = partial
        return sha256

    def flush(self) -> None:
        """Flush all blobs, give them their names, and flush the folders that hold the names.

        Raises:
            StorageError: the disk is full or not writable; blobs of the batch may be missing.
        """
        with self._lock:
            partials, self._partials = self._partials, {}
            folders, self._folders = self._folders, set()
        if not folders:
            return
        with (
            self._store._storage_errors(f"cannot store {len(partials)} images", convert_missing=True),
            ThreadPoolExecutor(min(_FLUSHES_AT_ONCE, len(folders))) as threads,
        ):
            list(threads.map(flush, partials.values()))
            for folder in folders:
                if not os.path.isdir(folder):  # noqa: PTH112
                    make_folder(Path(folder))
            for path, partial in partials.items():
                os.replace(partial, path)  # noqa: PTH105
            list(threads.map(flush, folders))


def _write_file(path: str, content: bytes) -> None:
    with open(path, "wb") as file:  # noqa: PTH123  # several times as fast as through fsspec
        file.write(content)


def _file_size(path: str) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except FileNotFoundError:
        return None


_PARTIAL = ".partial"
_FLUSHES_AT_ONCE = 16
"""Flushes that wait at the same time: a file system with a journal writes it once for all of them."""
_REQUESTS_AT_ONCE = 16
"""Questions to an object store at the same time."""
_COLLECT_AGAIN = "Collect its source again, or restore the folder from a backup."
_FREE_SPACE = "Free space there, make it writable, or point SDLORA_HOME at another disk; earlier records are intact."
_CHECK_SETTINGS = (
    "Correct SDLORA_BLOBS_URL and the variables of its client, such as AWS_ENDPOINT_URL and AWS_ACCESS_KEY_ID, and run "
    "again; earlier records are intact."
)
