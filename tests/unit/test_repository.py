"""What the project says of itself: its commands, its dependencies, its package contents."""

from __future__ import annotations

import ast
import fnmatch
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.main import get_command

from deployments.cli.app import app

PROJECT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
PACKAGES = ("sdlora", "tasks", "flows", "deployments")
GUIDES = [
    path for path in (PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *PROJECT.glob("docs/*.md")) if path.exists()
]


def requirements(*extras: str) -> list[Requirement]:
    project = PYPROJECT["project"]
    lines = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    return [Requirement(line) for line in lines]


def pins() -> dict[str, str]:
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pinned}


def commands_in(path: Path, program: str) -> set[str]:
    """Words that follow `program` where code is shown: in a fenced block or between backticks."""
    text = path.read_text()
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return {word for code in [*fenced, *inline] for word in re.findall(rf"\b{program} ([a-z][a-z-]*)", code)}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_every_make_target_that_a_guide_names_exists(guide):
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    assert targets >= {"demo", "dev", "check", "test", "test-all", "lock", "clean"}
    assert commands_in(guide, "make") <= targets


def sdlora_commands(command: Any = None, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of the command line with the words that are typed for it; a group comes before what is in it."""
    for name, below in getattr(command or get_command(app), "commands", {}).items():
        yield (*names, name), below
        yield from sdlora_commands(below, *names, name)


COMMANDS = dict(sdlora_commands())


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_every_sdlora_command_that_a_guide_names_exists(guide):
    assert commands_in(guide, "sdlora") <= {names[0] for names in COMMANDS}


def test_the_walk_finds_commands_and_those_of_groups():
    assert {("run",), ("images",), ("images", "purge"), ("snapshot", "list")} <= COMMANDS.keys()


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_sdlora_command_is_documented(names):
    command, *below = names
    assert any(command in commands_in(guide, "sdlora") for guide in GUIDES)
    lines = [line for guide in GUIDES for line in guide.read_text().splitlines() if f"sdlora {command}" in line]
    for name in below:  # "`sdlora images accept ID`, `reject`": a line names the group once
        assert any(re.search(rf"`(sdlora {command} )?{name}\b[^`]*`", line) for line in lines)


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_sdlora_command_lives_in_the_module_of_its_name(names):
    assert COMMANDS[names].callback.__module__ == f"deployments.cli.{names[0]}"


def test_every_requirement_is_pinned_inside_its_range():
    for requirement in requirements("dev", "assets", "server", "dask", "email"):
        pinned = pins().get(canonicalize_name(requirement.name))
        assert pinned is not None, f"{requirement.name} is missing from constraints.txt; run `make lock`"
        assert requirement.specifier.contains(pinned), f"{requirement} does not admit the pinned {pinned}"


def test_pins_are_sorted_and_hold_for_every_platform():
    lines = [line for line in (PROJECT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines == sorted(lines, key=str.upper)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)  # no +cpu, no file paths


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_everything_that_is_imported_is_a_declared_requirement(package):
    declared = {canonicalize_name(requirement.name) for requirement in requirements("assets", "dask", "email")}
    distributions = packages_distributions()
    files = list((PROJECT / package).rglob("*.py"))
    assert files
    for path in files:
        for module in set(imported_modules(path)) - set(sys.stdlib_module_names) - set(PACKAGES):
            names = {canonicalize_name(name) for name in distributions.get(module, [module.replace("_", "-")])}
            assert names & declared, (
                f"{path.relative_to(PROJECT)} imports {module}, which pyproject.toml does not ask for"
            )


@pytest.mark.parametrize("package", PACKAGES)
def test_every_data_file_of_a_package_is_part_of_its_installation(package):
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"].get(package, [])
    for path in (PROJECT / package).rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            name = path.relative_to(PROJECT / package).as_posix()
            # fnmatch's * crosses folders, as setuptools' **/ does.
            assert any(fnmatch.fnmatch(name, pattern.replace("**/", "*")) for pattern in patterns), name


def test_the_version_is_written_the_same_everywhere():
    import sdlora

    version = PYPROJECT["project"]["version"]
    assert sdlora.__version__ == version
    assert f"sdlora:{version}-cpu" in (PROJECT / "docker" / "compose.yaml").read_text()


def test_importing_the_library_loads_no_heavy_package():
    heavy = ("torch", "diffusers", "transformers", "prefect", "mlflow", "datasets")
    code = f"import sys, sdlora, sdlora.core.errors; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert result.stdout.strip() == "[]"


def test_the_console_script_points_at_a_function():
    module, _, function = PYPROJECT["project"]["scripts"]["sdlora"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_architecture_page_lists_the_layers_that_the_import_contract_has():
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    (layers,) = (one["layers"] for one in contracts if one.get("containers") == ["sdlora"])
    page = (PROJECT / "docs" / "architecture.md").read_text()
    listed = page.split("a part may import those below it:\n\n```\n")[1].split("```")[0].splitlines()
    assert [line.split("    ")[0].strip() for line in listed] == layers


TREE = (PROJECT / "CONTRIBUTING.md").read_text().split("## Where things are\n\n```\n")[1].split("```")[0]


def folders_in_tree() -> set[str]:
    """The folders that the tree of CONTRIBUTING.md names, as paths."""
    found, parents = set(), []
    for line in TREE.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        parents[depth:] = [name.rstrip("/")]
        if name.endswith("/"):
            found.add("/".join(parents))
        else:
            assert (PROJECT / "/".join(parents)).is_file(), line
    return found


def test_the_tree_in_contributing_names_every_folder_with_code_and_no_other():
    tracked = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    folders = {str(Path(path).parent) for path in tracked.splitlines() if path.startswith(PACKAGES)}
    deep = ("sdlora/assets/", "sdlora/store/", "sdlora/release/", "sdlora/models/files/", "docker/")
    wanted = {folder for folder in folders if not folder.startswith(deep)}
    named = folders_in_tree()
    assert wanted <= named, wanted - named
    assert all((PROJECT / folder).is_dir() for folder in named)


def test_every_path_that_contributing_names_exists():
    text = (PROJECT / "CONTRIBUTING.md").read_text().replace(TREE, "")
    paths = set(re.findall(r"`((?:sdlora|tasks|flows|deployments|docs|tests|benchmarks)/[\w./-]*)`", text))
    assert len(paths) >= 12
    missing = [path for path in paths if not (PROJECT / path).exists()]
    assert not missing


def test_the_public_face_of_the_library_is_what_it_was():
    import sdlora

    assert sdlora.__all__ == [
        "AdapterRef",
        "BaseModelRef",
        "Contest",
        "ImageStore",
        "LoRA",
        "PipelineConfig",
        "SdloraError",
        "SnapshotRef",
        "StableDiffusion",
        "clean",
        "collect",
        "load_base_model",
        "load_config",
        "make_snapshot",
        "run_duel",
    ]
    assert all(getattr(sdlora, name) is not None for name in sdlora.__all__)


OTHERS_FILES = {"train_text_to_image_lora.py"}  # of diffusers


@pytest.mark.parametrize(
    "guide", [path for path in GUIDES if path.name != "experiments.md"], ids=lambda path: path.name
)
def test_every_file_that_a_guide_names_exists(guide):
    """The experiments are left out: they speak of the code of their day."""
    tracked = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    files = tracked.splitlines()
    known = {Path(path).name for path in files} | OTHERS_FILES
    named = set(re.findall(r"`([\w./-]+\.py)`", guide.read_text()))
    missing = [name for name in named if name not in files and ("/" in name or name not in known)]
    assert not missing


MAX_PARAMETERS = 7
LONGER = {
    "StableDiffusion.generate": "diffusers' own pipelines take as many, one by one",
    "publish": "the flow passes the result of each stage, as its chart shows",
}


def public_functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """List the public functions of a module and the methods of its public classes, constructors included."""
    for node in tree.body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for member in members:
            if isinstance(member, ast.FunctionDef):
                name = prefix + member.name
                if not any(part.startswith("_") and part != "__init__" for part in name.split(".")):
                    yield name, member


def parameters_of(function: ast.FunctionDef) -> list[str]:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [argument.arg for argument in every if argument.arg not in ("self", "cls")]


def test_no_public_function_takes_more_than_seven_parameters_without_a_reason():
    functions = {
        name: function
        for package in ("sdlora", "tasks")
        for path in (PROJECT / package).rglob("*.py")
        for name, function in public_functions(ast.parse(path.read_text()))
        if len(parameters_of(function)) > MAX_PARAMETERS
    }
    assert functions.keys() == LONGER.keys()
    assert all("eight parameters" in (ast.get_docstring(function) or "") for function in functions.values())
