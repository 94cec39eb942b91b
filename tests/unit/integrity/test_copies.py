from __future__ import annotations

from pathlib import Path

import pytest

from sdlora.core.errors import StorageError
from sdlora.core.files import file_sha256
from sdlora.core.progress import SILENT
from sdlora.integrity.copies import Copy, digest_check, verify_copies
from tests.power_cut import files_in, recorded_flushes
from tests.unit.training.disk import disk_space

CONTENT = b"content" * 1000


@pytest.fixture
def copies(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(CONTENT)
    digest = file_sha256(tmp_path / "a")
    return [Copy("adapter", name, tmp_path / name, digest, digest_check(digest), "Train again.") for name in "abc"]


def check(copies, repair=True):
    return verify_copies(copies, SILENT.on_progress, repair=repair)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(CONTENT[:-1] + b"x")])
def test_a_damaged_copy_is_restored_from_any_whole_one_and_is_on_the_disk(damage, copies):
    for copy in copies[:2]:
        damage(copy.path)
    before = files_in(copies[0].path.parent)
    assert [(each.what, each.repaired) for each in check(copies, repair=False)] == [("a", False), ("b", False)]
    assert files_in(copies[0].path.parent) == before
    with recorded_flushes() as disk:
        assert [each.remedy for each in check(copies)] == [f"Restored from {copies[2].path}."] * 2
    assert disk.after_power_cut(copies[0].path.parent).items() >= {"a": CONTENT, "b": CONTENT}.items()
    assert check(copies) == []


def test_without_a_whole_copy_nothing_is_touched(copies):
    for copy in copies:
        copy.path.write_bytes(b"x" + CONTENT[1:])
    assert {each.remedy for each in check(copies)} == {"Train again."}
    assert set(files_in(copies[0].path.parent).values()) == {b"x" + CONTENT[1:]}


def test_a_copy_that_cannot_be_read_is_damaged(copies):
    copies[0].path.unlink()
    copies[0].path.mkdir()
    assert [each.problem for each in check(copies, repair=False)] == ["damaged"]


def test_a_full_disk_ends_a_repair_and_leaves_the_damaged_file(copies):
    copies[0].path.write_bytes(b"x")
    with disk_space(1000), pytest.raises(StorageError, match="Cannot restore"):
        check(copies)
    assert copies[0].path.read_bytes() == b"x"
