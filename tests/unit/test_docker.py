"""The container files are read, not run: what they name must exist."""

from __future__ import annotations

import configparser
import importlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask

PROJECT = Path(__file__).parents[2]
DOCKER = PROJECT / "docker"
DOCKERFILES = [DOCKER / "Dockerfile.cpu", DOCKER / "Dockerfile.gpu"]
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def instructions(dockerfile: Path) -> list[str]:
    lines = dockerfile.read_text().replace("\\\n", " ").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_stack_has_the_services_that_the_readme_lists(compose):
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", (DOCKER / "README.md").read_text(), re.MULTILINE)
    assert set(listed) == set(compose["services"])
    assert {"postgres", "prefect", "mlflow", "s3", "worker"} <= set(listed)


def test_every_variable_has_an_example_and_every_example_is_used():
    used = set(VARIABLE.findall((DOCKER / "compose.yaml").read_text()))
    example = (DOCKER / ".env.example").read_text()
    assert used == set(re.findall(r"^([A-Z0-9_]+)=", example, re.MULTILINE))


def test_no_secret_is_written_down_and_none_may_be_left_out():
    text = (DOCKER / "compose.yaml").read_text()
    secret = re.compile(r"(PASSWORD|SECRET|AUTH_STRING|ACCESS_KEY)\w*: (?P<value>.+)")
    values = [match["value"] for match in secret.finditer(text)]
    assert len(values) >= 6
    # ${NAME:?...} makes compose refuse to start without the variable.
    assert all(value.startswith("${") and ":?" in value for value in values)


def test_no_secret_is_on_a_command_line():
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    words = {name: str(service.get("command", "")) for name, service in compose["services"].items()}
    assert any(words.values())
    assert [name for name, command in words.items() if "${" in command] == []


def test_pages_of_other_origins_are_refused_by_both_servers(compose):
    prefect, mlflow = (compose["services"][name]["environment"] for name in ("prefect", "mlflow"))
    page = prefect["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]
    assert prefect["PREFECT_SERVER_UI_API_URL"] == f"{page}/api"
    settings = configparser.ConfigParser(interpolation=None)
    settings.read_string(compose["configs"]["mlflow-auth"]["content"])
    module, function = settings["mlflow"]["authorization_function"].split(":")
    only_the_owner = getattr(importlib.import_module(module), function)
    with pytest.MonkeyPatch.context() as patch:
        for name in mlflow.keys() & {"MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN_PASSWORD"}:
            patch.setenv(name, "known")
        with Flask(__name__).test_request_context("/", headers={"Origin": "http://evil.example"}):
            assert only_the_owner().status_code == 403
        with Flask(__name__).test_request_context("/", auth=("known", "known")):
            assert only_the_owner().username == "known"


def test_every_image_is_ours_or_pinned_to_a_release(compose):
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    bases = [line.split()[1] for file in DOCKERFILES for line in instructions(file) if line.startswith("FROM ")]
    assert len(bases) == len(DOCKERFILES)
    for image in [*(service["image"] for service in compose["services"].values()), *bases]:
        name, _, tag = image.partition(":")
        assert tag.startswith(version) if name == "sdlora" else re.match(r"\d+\.\d+", tag), image


def test_every_file_that_compose_names_exists(compose):
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (DOCKER / source).exists() if source.startswith(".") else source in compose["volumes"], name
        if "build" in service:
            assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).exists()
        for config in service.get("configs", []):
            assert config["source"] in compose["configs"]
        assert set(service.get("depends_on", {})) <= set(compose["services"])


def test_the_images_copy_only_what_exists_and_what_the_build_context_lets_through():
    allowed = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for dockerfile in DOCKERFILES:
        sources = {
            source for line in instructions(dockerfile) if line.startswith("COPY ") for source in line.split()[1:-1]
        }
        assert sources == allowed
        assert all((PROJECT / source).exists() for source in sources)


def test_both_images_differ_only_in_where_pytorch_comes_from_and_run_without_rights():
    cpu, gpu = (instructions(file) for file in DOCKERFILES)
    assert [line for line in cpu if line not in gpu and not line.startswith(("ENV", "ARG"))] == []
    assert all("USER sdlora" in lines for lines in (cpu, gpu))


def test_servers_ask_for_a_password_answer_on_loopback_only_and_say_when_they_are_ready(compose):
    services = compose["services"]
    assert "PREFECT_SERVER_API_AUTH_STRING" in services["prefect"]["environment"]
    assert "--app-name=basic-auth" in services["mlflow"]["command"]
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    for name in ("postgres", "s3", "prefect", "mlflow", "worker"):
        assert services[name]["healthcheck"]["test"], name


def test_telemetry_is_off_in_the_images():
    for dockerfile in DOCKERFILES:
        text = dockerfile.read_text()
        for setting in ("DO_NOT_TRACK=1", "MLFLOW_DISABLE_TELEMETRY=true", "PREFECT_SERVER_ANALYTICS_ENABLED=false"):
            assert setting in text
