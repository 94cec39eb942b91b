"""What lies in a state folder for its owner alone."""

from __future__ import annotations

import os
import stat

import pytest

from sdlora.core.errors import TrainingError
from tasks.lock import LOCK_FILE, training_lock
from tasks.private import private_file, private_folder


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("there_already", [False, True])
def test_nobody_else_can_open_and_so_hold_the_training_lock(tmp_path, there_already):
    lock = tmp_path / LOCK_FILE
    if there_already:
        lock.write_text("4711, left by another process")
        lock.chmod(0o644)
    with training_lock(tmp_path):
        assert mode(lock) == 0o600
        assert lock.read_text().isdecimal()
        with pytest.raises(TrainingError, match=rf"process {os.getpid()}\b"), training_lock(tmp_path):
            pass
    with training_lock(tmp_path):  # free again
        pass


def test_a_lock_that_is_a_link_to_elsewhere_is_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / LOCK_FILE).symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic links"):
        private_file(tmp_path / LOCK_FILE)
    assert not elsewhere.exists()


def test_a_folder_is_closed_also_if_it_was_there(tmp_path):
    (tmp_path / "there").mkdir(mode=0o755)
    for name in ("there", "new/below"):
        assert mode(private_folder(tmp_path / name)) == 0o700
