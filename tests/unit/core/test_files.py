from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from sdlora.core.checkpoints import save_checkpoint
from sdlora.core.errors import StorageError
from sdlora.core.files import link_or_copy, replace_file, written_aside
from tests.power_cut import files_in, recorded_flushes
from tests.unit.training.disk import disk_space


def write_folder(root):
    with written_aside(root / "deep" / "er" / "folder") as partial:
        (partial / "below").mkdir(parents=True)
        (partial / "a").write_bytes(b"a")
        (partial / "below" / "b").write_bytes(b"b")


def replace_folder(root):
    write_folder(root)
    with written_aside(root / "deep" / "er" / "folder") as partial:
        partial.mkdir()
        (partial / "c").write_bytes(b"c")


@pytest.mark.parametrize(
    "write",
    [
        write_folder,
        replace_folder,
        lambda root: replace_file(root / "new" / "file", b"content"),
        lambda root: save_checkpoint(root / "checkpoints", 3, {"w": torch.ones(2)}, {"x": 1}),
    ],
)
def test_what_was_written_is_there_after_a_power_cut(write, tmp_path):
    with recorded_flushes() as disk:
        write(tmp_path)
    written = files_in(tmp_path)
    assert written
    assert disk.after_power_cut(tmp_path) == written


def test_a_power_cut_loses_what_was_not_flushed(tmp_path):
    with recorded_flushes() as disk:
        replace_file(tmp_path / "flushed", b"x")
        (tmp_path / "not").write_bytes(b"y")
    assert disk.after_power_cut(tmp_path) == {"flushed": b"x"}


def test_content_is_flushed_before_it_gets_its_name(tmp_path, monkeypatch):
    events = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(str(Path(f"/proc/self/fd/{fd}").readlink())), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("named"), replace(a, b)))
    replace_file(tmp_path / "file", b"x")
    partial, named, folder = events
    assert "partial" in partial
    assert named == "named"
    assert folder == str(tmp_path)


def test_a_failing_writer_leaves_the_earlier_content_and_nothing_else(tmp_path):
    replace_file(tmp_path / "file", b"old")
    with suppress(RuntimeError), written_aside(tmp_path / "file") as partial:
        partial.write_bytes(b"half")
        raise RuntimeError
    with disk_space(1000), pytest.raises(StorageError, match="Cannot write"):
        replace_file(tmp_path / "file", b"x" * 5000)
    assert files_in(tmp_path) == {"file": b"old"}


def test_what_killed_writers_left_is_removed_after_a_day(tmp_path):
    for age, name in ((0, ".file.partial-1"), (2 * 86_400, ".file.partial-2"), (2 * 86_400, ".other.partial-3")):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    replace_file(tmp_path / "file", b"x")
    assert files_in(tmp_path).keys() == {"file", ".file.partial-1", ".other.partial-3"}


def test_a_second_name_takes_no_space_and_a_replaced_file_leaves_the_other_name_alone(tmp_path):
    replace_file(tmp_path / "first", b"weights")
    link_or_copy(tmp_path / "first", tmp_path / "second")
    assert (tmp_path / "first").samefile(tmp_path / "second")
    replace_file(tmp_path / "second", b"others")
    assert (tmp_path / "first").read_bytes() == b"weights"


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
def test_a_file_is_copied_where_the_file_system_refuses_a_second_name(error, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(error, os.strerror(error))

    (tmp_path / "first").write_bytes(b"weights")
    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(tmp_path / "first", tmp_path / "second")
    assert not (tmp_path / "first").samefile(tmp_path / "second")
    assert (tmp_path / "second").read_bytes() == b"weights"
