from __future__ import annotations

import hashlib
import resource
import signal
from pathlib import Path

import pytest

from sdlora.core.errors import DataError, StorageError
from sdlora.store.blobs import BlobStore


def test_bytes_come_back_under_their_sha256(tmp_path: Path) -> None:
    blobs = BlobStore(str(tmp_path))
    sha256 = blobs.put(b"some bytes")
    assert sha256 == hashlib.sha256(b"some bytes").hexdigest()
    assert blobs.get(sha256) == b"some bytes"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [sha256]


def test_the_same_store_can_lie_in_any_file_system_of_fsspec() -> None:
    blobs = BlobStore("memory://pictures")
    assert blobs.get(blobs.put(b"in memory")) == b"in memory"


def test_a_disk_that_takes_no_more_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    blobs = BlobStore(str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel refuses the write half-way, as on a full disk.
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageError, match=r"(?s)cannot store 5000 bytes.*SDLORA_HOME") as caught:
            blobs.put(b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert str(tmp_path) in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert blobs.get(blobs.put(b"x" * 5000)) == b"x" * 5000


def test_damaged_and_missing_bytes_are_refused(tmp_path: Path) -> None:
    blobs = BlobStore(str(tmp_path))
    sha256 = blobs.put(b"right")
    path = next(path for path in tmp_path.rglob("*") if path.is_file())
    path.write_bytes(b"wrong")
    with pytest.raises(DataError, match="damaged"):
        blobs.get(sha256)
    path.unlink()
    with pytest.raises(DataError, match="lacks the bytes"):
        blobs.get(sha256)


def test_a_blob_cut_short_by_a_power_cut_is_written_again(tmp_path: Path) -> None:
    blobs = BlobStore(str(tmp_path))
    sha256 = blobs.put(b"whole")
    next(path for path in tmp_path.rglob("*") if path.is_file()).write_bytes(b"")
    assert blobs.put(b"whole") == sha256
    assert blobs.get(sha256) == b"whole"
