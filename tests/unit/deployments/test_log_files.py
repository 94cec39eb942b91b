"""`sdlora logs`: ends of files, new lines of a file that is replaced, and escapes of foreign text."""

from __future__ import annotations

import threading

import pytest
from typer.testing import CliRunner

from deployments.cli.app import app
from deployments.servers.log_files import follow, last_lines, log_files
from tests.waiting import PATIENCE_SECONDS, wait_until


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home" / "logs"
    folder.mkdir(parents=True)
    (folder / "prefect-server.log").write_text("".join(f"line {number}\n" for number in range(100)))
    (folder / "worker.log").write_bytes(b"caption \x1b[31mred\xff\nlast\n")
    (folder / "run.log").write_text("a run of a terminal\n")
    return folder.parent


def sdlora(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_logs_have_the_names_of_their_services(home):
    assert {name: path.name for name, path in log_files(home).items()} == {
        "prefect": "prefect-server.log",
        "run": "run.log",
        "worker": "worker.log",
    }


def test_the_last_lines_of_a_log_are_shown_with_escapes(home):
    done = sdlora("logs", "prefect", "-n", "3", "--home", str(home))
    assert done.stdout.splitlines() == ["line 97", "line 98", "line 99"]
    done = sdlora("logs", "worker", "--home", str(home))
    assert done.stdout.splitlines() == ["caption \\x1b[31mred\ufffd", "last"]


def test_without_a_name_every_log_is_shown(home):
    done = sdlora("logs", "-n", "1", "--home", str(home))
    assert [line for line in done.stdout.splitlines() if " (/" not in line] == [
        "line 99",
        "a run of a terminal",
        "last",
    ]


def test_an_unknown_name_is_told_with_the_names_that_there_are(home):
    done = sdlora("logs", "elsewhere", "--home", str(home))
    assert done.exit_code == 1
    assert "No log file is named 'elsewhere'. There are: prefect, run, worker." in " ".join(done.stderr.split())


def test_new_lines_are_followed_through_a_replacement_and_a_shortening(tmp_path):
    path = tmp_path / "server.log"
    path.write_text("old\n")
    assert list(follow(path, lambda: True)) == []  # lines from before are not repeated

    over, collected, looks = threading.Event(), [], []

    def is_over() -> bool:
        looks.append(len(collected))  # the reader has come to the end of the file
        return over.is_set()

    def wait_for_look() -> None:
        before = len(looks)
        wait_until(lambda: len(looks) >= before + 2, "a look at the file")

    reader = threading.Thread(target=lambda: [collected.append(line) for line in follow(path, is_over)], daemon=True)
    reader.start()
    wait_for_look()
    with path.open("a") as file:
        file.write("first\nhal")
        file.flush()
        wait_until(lambda: len(collected) == 1, "the first line")
        file.write("ves\n")
    wait_until(lambda: len(collected) == 2, "the second line")
    path.rename(tmp_path / "server.log.1")
    path.write_text("replaced\n")
    wait_until(lambda: len(collected) == 3, "the line of the new file")
    path.write_text("")
    wait_for_look()
    with path.open("a") as file:
        file.write("shortened\n")
    wait_until(lambda: len(collected) == 4, "the line of the shortened file")
    over.set()
    reader.join(PATIENCE_SECONDS)
    assert collected == ["first", "halves", "replaced", "shortened"]


def test_the_end_of_a_long_log_is_found_without_reading_all_of_it(tmp_path):
    path = tmp_path / "server.log"
    path.write_bytes(b"x" * 99 + b"\n" * 1 + b"y" * 6_000_000 + b"\nend\n")
    assert last_lines(path, 1) == ["end"]
