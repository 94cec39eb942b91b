"""The unit of `sdlora up --install`: what systemd reads in it, and that nothing is started."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli.app import app
from deployments.servers.systemd import install_unit, unit_name, unit_text
from sdlora.core.errors import ConfigError

AWKWARD = ["plain", "with spaces", "100%", 'quo"te', "dollar$HOME", "umlaut-\u00e4"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "systemd" / "user"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", AWKWARD)
def test_systemd_accepts_the_unit_for_any_folder(tmp_path, name):
    home = tmp_path / name
    home.mkdir()
    unit = install_unit(home, ["--config", str(home / "style.yaml"), "--prefect-port", "4300"])
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_names_this_program_and_folder_and_stops_as_ctrl_c_does(tmp_path):
    text = unit_text(tmp_path, ["--prefect-port", "4300"])
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    assert lines["ExecStart"] == (
        f'"{sys.executable}" "-m" "deployments.cli" "up" "--home" "{tmp_path}" "--prefect-port" "4300"'
    )
    assert lines["KillMode"] == "mixed"
    assert lines["Restart"] == "on-failure"
    assert lines["EnvironmentFile"] == f"-{tmp_path}/environment"
    assert "PASSWORD" not in text


def test_each_state_folder_has_its_own_unit(tmp_path):
    assert unit_name(tmp_path / "a" / "home") != unit_name(tmp_path / "b" / "home")
    assert unit_name(tmp_path) == unit_name(tmp_path)


def test_a_path_that_systemd_cannot_name_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="control characters"):
        unit_text(tmp_path / "line\nbreak", [])


def test_the_command_writes_and_prints_the_unit_and_starts_nothing(tmp_path, folder):
    home = tmp_path / "home"
    done = CliRunner().invoke(app, ["up", "--install", "--home", str(home), "--prefect-port", "4300"])
    assert done.exit_code == 0, done.output
    (unit,) = folder.iterdir()
    assert unit.read_text() in done.stdout
    assert f"systemctl --user enable --now {unit.name}" in done.stdout
    assert "loginctl enable-linger" in done.stdout
    assert not (home / "up.lock").exists()
    assert stat.S_IMODE(unit.stat().st_mode) & 0o022 == 0
    assert "4300" in unit.read_text()
    CliRunner().invoke(app, ["up", "--install", "--home", str(home), "--prefect-port", "4400"])
    assert "4400" in unit.read_text()
    assert list(folder.iterdir()) == [unit]


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="cannot be written"):
        install_unit(tmp_path, [])


def test_the_unit_is_a_file_for_systemd_alone(tmp_path):
    assert install_unit(tmp_path, []).suffix == ".service"
    assert isinstance(install_unit(tmp_path, []), Path)
