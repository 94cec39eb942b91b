from __future__ import annotations

import errno
import os
import stat
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from deployments.servers.credentials import FILE, credentials_of
from sdlora.core.errors import ConfigError


def test_they_are_made_once_and_for_the_owner_alone(tmp_path):
    previous = os.umask(0)  # the most generous a person can be
    try:
        made = credentials_of(tmp_path / "home")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "home" / FILE).stat().st_mode) == 0o600
    assert len(made.password) >= 32
    assert credentials_of(tmp_path / "home") == made
    assert [path.name for path in (tmp_path / "home").iterdir()] == [FILE]  # and no draft is left


def test_state_folders_have_passwords_of_their_own(tmp_path):
    one, other = credentials_of(tmp_path / "one"), credentials_of(tmp_path / "other")
    assert one.password != other.password
    assert one.mlflow_secret_key not in (other.mlflow_secret_key, one.password)


def test_many_processes_at_once_agree(tmp_path):
    with ProcessPoolExecutor(8, get_context("fork")) as pool:
        assert len({made.password for made in pool.map(credentials_of, [tmp_path] * 64)}) == 1


def test_a_file_that_others_can_read_is_refused_with_the_remedy(tmp_path):
    credentials_of(tmp_path)
    (tmp_path / FILE).chmod(0o644)
    with pytest.raises(ConfigError, match=r"mode is 0644.*has to be 0600.*chmod 600"):
        credentials_of(tmp_path)


def test_a_damaged_file_is_told(tmp_path):
    credentials_of(tmp_path)
    for text in ("{", '{"user": "sdlora"}'):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(ConfigError, match=r"credentials.json is damaged.*Delete it"):
            credentials_of(tmp_path)


def test_a_link_to_elsewhere_is_not_followed(tmp_path):
    credentials_of(tmp_path / "elsewhere")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / FILE).symlink_to(tmp_path / "elsewhere" / FILE)
    with pytest.raises(ConfigError, match=r"is a symbolic link.*Remove the link"):
        credentials_of(tmp_path / "home")


def _as_another_user(home, pipe) -> None:
    os.setgid(65534)
    os.setuid(65534)
    try:
        credentials_of(home)
    except ConfigError as error:
        pipe.send(str(error))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_file_of_another_user_is_told_with_the_remedy(mode):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        Path(folder).chmod(0o755)
        home = Path(folder, "home")
        credentials_of(home)
        home.chmod(mode)
        here, there = get_context("fork").Pipe()
        process = get_context("fork").Process(target=_as_another_user, args=(home, there))
        process.start()
        process.join()
        assert here.poll(), process.exitcode
        assert "belongs to another user. Work with a state folder of your own: --home" in here.recv()


def test_where_files_keep_no_modes_the_remedy_is_told_and_no_password_lies_there(tmp_path, monkeypatch):
    def open_to_all(**draft):  # what such a file system makes of mode 0600
        path = Path(draft["dir"], draft["prefix"])
        return os.open(path, os.O_CREAT | os.O_RDWR, 0o755), str(path)

    monkeypatch.setattr(tempfile, "mkstemp", open_to_all)
    with pytest.raises(ConfigError, match=r"keeps no permissions.*--home on a file system with permissions"):
        credentials_of(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_where_there_are_no_hard_links_the_remedy_is_told_and_no_password_lies_there(tmp_path, monkeypatch):
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(ConfigError, match=r"keeps no hard links.*--home on a file system with permissions"):
        credentials_of(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_traceback_does_not_show_the_password(tmp_path):
    made = credentials_of(tmp_path)
    assert made.password not in repr(made)
    assert made.mlflow_secret_key not in f"{made}"
