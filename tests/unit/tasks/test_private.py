"""What lies in a state folder for its owner alone."""

from __future__ import annotations

import stat

import pytest

from sdlora.core.errors import TrainingError
from tasks.lock import LOCK_FILE, exclusive_lock, run_lock
from tasks.private import private_file, private_folder


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("there_already", [False, True])
def test_nobody_else_can_open_and_so_hold_the_lock_of_runs(tmp_path, there_already):
    lock = tmp_path / LOCK_FILE
    if there_already:
        lock.write_text("left by another process")
        lock.chmod(0o644)
    with run_lock(tmp_path):
        assert mode(lock) == 0o600


def test_runs_share_a_folder_and_a_repair_or_clean_up_has_it_for_itself(tmp_path):
    with run_lock(tmp_path), run_lock(tmp_path), pytest.raises(TrainingError, match="A run works in"):
        exclusive_lock(tmp_path).__enter__()
    with exclusive_lock(tmp_path):
        with pytest.raises(TrainingError, match="`sdlora doctor --repair` or `sdlora gc` works in"):
            run_lock(tmp_path).__enter__()
        with pytest.raises(TrainingError, match="A run works in"):
            exclusive_lock(tmp_path).__enter__()
    with run_lock(tmp_path):  # free again
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
