from __future__ import annotations

import os
import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from deployments.credentials import FILE, credentials_of
from sdlora.errors import ConfigError


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
    with pytest.raises(ConfigError, match=r"has mode 0644.*has to be 0600.*chmod 600"):
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
    with pytest.raises(OSError, match="symbolic links"):
        credentials_of(tmp_path / "home")


def test_a_traceback_does_not_show_the_password(tmp_path):
    made = credentials_of(tmp_path)
    assert made.password not in repr(made)
    assert made.mlflow_secret_key not in f"{made}"
