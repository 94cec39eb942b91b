from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sdlora
from deployments.cli.app import COMMANDS, app
from deployments.cli.failures import error_message, friendly_errors
from sdlora.core.errors import DataError
from tests.tiny import draw_images

HELP_MODULES = 450
"""361 in November 2026: what Typer and Rich need to print a help page, and the commands themselves."""


def invoke(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_help_names_every_command_and_loads_few_modules():
    code = """
import atexit, sys
from deployments.cli import main
atexit.register(lambda: print(len(sys.modules)))
sys.argv = ["sdlora", "--help"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(command.__name__ in done.stdout for command in COMMANDS)
    assert int(done.stdout.splitlines()[-1]) < HELP_MODULES


def test_the_command_line_imports_nothing_heavy():
    heavy = "{'torch', 'prefect', 'mlflow', 'sqlalchemy', 'diffusers', 'PIL', 'pydantic'}"
    code = f"import sys, deployments.cli; print(sorted({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_showing_the_settings_loads_no_model_library(tmp_path):
    code = f"""
import atexit, sys
from deployments.cli import main
atexit.register(lambda: print({{"diffusers", "transformers", "peft", "prefect", "mlflow"}} & sys.modules.keys()))
sys.argv = ["sdlora", "--home", {str(tmp_path)!r}, "run", "high-contrast", "--show-config"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "training.steps" in done.stdout
    assert done.stdout.endswith("set()\n"), done.stdout + done.stderr


def test_a_command_looks_for_garbage_seldom_and_not_at_its_end():
    code = """
import atexit, gc, sys
from deployments.cli import main
atexit.register(lambda: print("frozen", gc.get_freeze_count() > 0, gc.get_threshold()[0]))
sys.argv = ["sdlora", "--help"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("frozen True 100000\n"), done.stderr


def test_importing_the_library_is_cheap_and_its_names_are_there():
    code = "import sys, sdlora; assert 'torch' not in sys.modules; [getattr(sdlora, name) for name in sdlora.__all__]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [command.__name__ for command in COMMANDS])
def test_every_command_explains_itself(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "--home" in result.output


def test_a_misspelt_command_is_a_usage_error():
    assert invoke("colect").exit_code == 2


def test_opposite_options_are_a_usage_error(tmp_path):
    assert invoke("images", "--home", str(tmp_path), "--rejected", "--accepted").exit_code == 2
    assert invoke("generate", "a cat", "--home", str(tmp_path), "--base", "--version", "1").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["collect", "missing-folder"], "missing-folder"),
        (["collect", "empty"], "empty"),
        (["run", "--config", "absent.yaml"], "no configuration file absent.yaml"),
        (["run", "--config", "typo.yaml"], "Did you mean 'training'?"),
    ],
)
def test_a_wrong_input_is_one_message_and_code_1(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("typo.yaml").write_text("trainin: {}\n")
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_the_state_folder_can_be_named_before_or_after_the_command(tmp_path):
    images = draw_images(tmp_path / "images", 3)
    assert invoke("--home", str(tmp_path / "before"), "collect", str(images)).exit_code == 0
    assert invoke("collect", str(images), "--home", str(tmp_path / "after")).exit_code == 0
    for name in ("before", "after"):
        assert (tmp_path / name / "images.db").is_file()


def test_collected_images_are_listed_with_verdicts_and_reasons(tmp_path):
    folder = draw_images(tmp_path / "images", 4)
    (folder / "broken.png").write_bytes(b"this is no image")
    collected = invoke("collect", str(folder), "--home", str(tmp_path / "home"))
    assert "5 new, 5 in all: 4 accepted, 1 rejected." in collected.output
    again = invoke("collect", str(folder), "--home", str(tmp_path / "home"))
    assert "0 new, 5 in all" in again.output
    rejected = invoke("images", "--rejected", "--home", str(tmp_path / "home"))
    assert "broken" in rejected.output
    assert "1 unreadable" in " ".join(rejected.output.split())
    assert (
        len(CliRunner().invoke(app, ["images", "--accepted", "--home", str(tmp_path / "home")]).output.splitlines()) > 4
    )


def test_nothing_yet_is_said_with_the_next_command(tmp_path):
    assert "sdlora collect" in " ".join(invoke("images", "--home", str(tmp_path)).output.split())
    assert "sdlora demo" in " ".join(invoke("versions", "--home", str(tmp_path)).output.split())


def test_foreign_text_in_an_error_and_its_traceback_is_escaped(tmp_path, monkeypatch):
    hostile = tmp_path / "owned\x1b[2J\u202e"
    told = invoke("collect", str(hostile), "--home", str(tmp_path / "home")).stderr
    assert "\x1b" not in told and "\u202e" not in told
    assert r"owned\x1b[2J\u202e" in told
    monkeypatch.setenv("SDLORA_TRACEBACK", "1")
    traced = invoke("collect", str(hostile), "--home", str(tmp_path / "home")).stderr
    assert "Traceback" in traced and r"owned\x1b[2J\u202e" in traced
    assert "\x1b" not in traced and "\u202e" not in traced


def test_the_version_is_printed():
    assert invoke("--version").output == f"sdlora {sdlora.__version__}\n"


@pytest.mark.parametrize("words", [("-q", "images"), ("images", "-q"), ("images", "list", "--quiet")])
def test_quiet_stands_before_or_after_the_command_and_leaves_the_result(tmp_path, words):
    home = str(tmp_path / "home")
    folder = str(draw_images(tmp_path / "images", 2))
    assert "Train on them" in invoke("--home", home, "collect", folder).output
    listed = invoke("--home", home, *words).output
    assert "2 images: 2 accepted" in listed
    assert "Look at one" not in listed
    assert "Look at one" in invoke("--home", home, "images").output  # the next command is not quiet


def test_progress_goes_to_standard_error(tmp_path):
    done = invoke("collect", str(draw_images(tmp_path / "images", 2)), "--home", str(tmp_path / "home"))
    assert "check images: 2/2" in done.stderr
    assert "check images" not in done.stdout
    assert "2 new, 2 in all" in done.stdout


@pytest.mark.parametrize(
    ("words", "number", "completions"),
    [("sdlora ver", 1, {"versions"}), ("sdlora images sh", 2, {"show"}), ("sdlora versions --js", 2, {"--json"})],
)
def test_the_shell_completes_commands_and_options(words, number, completions):
    code = "import sys; from deployments.cli import main; sys.argv = ['sdlora']; main()"
    asked = {"_SDLORA_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(number)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **asked})
    assert set(done.stdout.split()) == completions, done.stderr


def test_an_interrupted_command_says_how_to_go_on_and_ends_with_130(capsys):
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(Exception) as caught:  # noqa: PT011  # the library's own exit, known by its code
        friendly_errors(interrupted)()
    assert caught.value.exit_code == 130
    assert "same command continues" in capsys.readouterr().err


def test_the_cause_is_told_however_deep_it_is_wrapped():
    wrapped = RuntimeError("task failed")
    wrapped.__cause__ = DataError("data.sources: nothing there")
    assert error_message(wrapped) == "data.sources: nothing there"
    assert "disk is full" in error_message(OSError(28, "No space left on device", "/x"))
    assert error_message(OSError(30, "Read-only file system", "/x")) == (
        "/x is on a read-only file system. Choose another --home."
    )
    deep = RuntimeError("MLflow failed")
    deep.__cause__ = RuntimeError("(sqlite3.OperationalError) database or disk is full")
    assert error_message(deep).startswith("The disk is full (while writing to a database).")
    assert "SDLORA_TRACEBACK" in error_message(ValueError("boom"))


def test_a_failure_on_a_full_disk_says_so_even_if_its_cause_stayed_in_another_process(monkeypatch, capsys):
    def failing() -> None:
        raise DataError("the server ended with code 3")

    monkeypatch.setattr("deployments.cli.failures.FULL_DISK_BYTES", 2**80)
    with pytest.raises(Exception):  # noqa: B017, PT011  # the library's own exit
        friendly_errors(failing)()
    said = capsys.readouterr().err
    assert "ended with code 3" in said
    assert "is full. Free some space" in said


def test_a_named_server_that_is_gone_is_told_without_its_password(monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://person:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Exception, match="refused") as caught:
        MlflowClient("http://person:secret@127.0.0.1:9").search_experiments()
    said = error_message(caught.value)
    assert "No server answers at http://127.0.0.1:9 (MLFLOW_TRACKING_URI)" in said
    assert "the same command continues" in said
    assert "secret" not in said


@pytest.mark.parametrize("command", [("login",), ("versions",), ("generate", "a car"), ("export", "out")])
def test_a_misspelt_state_folder_is_not_made(command, tmp_path):
    home = tmp_path / "misspelt"
    typed = [sys.executable, "-m", "deployments.cli", *command, "--home", str(home)]
    done = subprocess.run(typed, capture_output=True, text=True)
    assert str(home) in (done.stdout + done.stderr).replace("\n", "")
    assert not home.exists()
