"""`--home` wins over SDLORA_HOME wherever it stands, for every command there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from deployments.cli.app import app


def paths(command: Any, *names: str) -> Iterator[tuple[str, ...]]:
    """The names that lead to each command of the program."""
    for name, below in getattr(command, "commands", {}).items():
        yield (*names, name)
        yield from paths(below, *names, name)


ALL = sorted(paths(get_command(app)))
PLACES = [(names, place) for names in ALL for place in range(len(names) + 1)]


def required(command: Any) -> list[str]:
    """Something for all that the command cannot do without."""
    given = []
    for parameter in command.params:
        if parameter.required:
            given += [*parameter.opts[:1], "1"] if parameter.param_type_name == "option" else ["1"]
    return given


def home_of(names: tuple[str, ...], place: int | None) -> Path:
    """The state folder that a command is called with if `--home option` stands after so many of its names."""
    program = command = get_command(app)
    for name in names:
        command = command.commands[name]
    called: dict[str, Any] = {}
    if not getattr(command, "commands", None):
        command.callback = lambda **parameters: called.update(parameters)
    elif command.invoke_without_command:  # `sdlora images` lists them
        command.callback = lambda home, **_: called.update(home=home)
    else:  # `sdlora snapshot` alone shows its help
        return home_of((*names, next(iter(command.commands))), place)
    words = list(names)
    if place is not None:
        words[place:place] = ["--home", "option"]
    program.main([*words, *required(command)], standalone_mode=False)
    return Path(called["home"])


def test_the_walk_finds_commands_and_those_of_groups():
    assert {("run",), ("snapshot", "list"), ("images", "purge")} <= set(ALL)


@pytest.mark.parametrize(("names", "place"), PLACES, ids=str)
def test_the_option_wins_over_the_variable_wherever_it_stands(monkeypatch, names, place):
    monkeypatch.setenv("SDLORA_HOME", "variable")
    assert home_of(names, place) == Path("option")


@pytest.mark.parametrize("names", ALL, ids=str)
def test_the_variable_counts_where_no_option_is_given(monkeypatch, names):
    monkeypatch.setenv("SDLORA_HOME", "variable")
    assert home_of(names, None) == Path("variable")
