"""`sdlora generate`, with a tiny base model instead of a registered version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli import generate as command
from deployments.cli.app import app
from sdlora.core.config_base import MAX_GUIDANCE_SCALE, MAX_SEED
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.store.image_store import ImageStore
from tasks import drawing
from tests.tiny import tiny_base_model
from tests.unit.deployments.test_json_output import documented, shape, written


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = load_base_model(BaseModelConfig(source=str(tiny_base_model(tmp_path / "base"))), tmp_path / "home")
    monkeypatch.setattr(drawing, "find_model", lambda which, name, home: drawing.Model("tiny base", base, None))
    monkeypatch.setattr("deployments.local_run.prepare_environment", lambda home: None)
    return tmp_path / "home"


def generate(home: Path, *arguments: str):
    out = ["--out", str(home.parent / "out"), "--home", str(home)]
    done = CliRunner().invoke(app, ["generate", "a red circle", *arguments, *out])
    assert done.exit_code == 0, done.output
    return done


def test_steps_guidance_and_negative_prompt_change_the_image_and_are_kept(home):
    settings = ["--steps", "2", "--seed", "3"]
    first, again, other = (
        generate(home, *settings, *more).stdout.split(maxsplit=1)
        for more in ([], [], ["--guidance-scale", "7.5", "--negative-prompt", "text"])
    )
    assert first == again != other
    assert Path(first[1].strip()).read_bytes() != Path(other[1].strip()).read_bytes()  # nothing is overwritten
    with ImageStore.open(home) as store:
        newest, oldest = store.generations()
        assert [oldest.sha256[:10], newest.sha256[:10]] == [first[0], other[0]]
        assert store.read_bytes(newest.sha256) == Path(other[1].strip()).read_bytes()
    assert (newest.steps, newest.guidance_scale, newest.negative_prompt, newest.seed) == (2, 7.5, "text", 3)
    assert (oldest.steps, oldest.guidance_scale, oldest.negative_prompt) == (2, 4.0, "")
    shown = CliRunner().invoke(app, ["images", "show", other[0], "--home", str(home)]).output
    assert "tiny base a red circle text 3 2 7.5" in " ".join(shown.split())


def test_the_bounds_are_those_of_the_settings():
    assert (command._MAX_SEED, command._MAX_GUIDANCE_SCALE) == (MAX_SEED, MAX_GUIDANCE_SCALE)


@pytest.mark.parametrize(
    ("option", "value"), [("--guidance-scale", "inf"), ("--guidance-scale", "nan"), ("--seed", "9" * 23)]
)
def test_what_no_sampler_takes_is_refused_before_a_model_is_loaded(home, option, value):
    done = CliRunner().invoke(app, ["generate", "a red circle", option, value, "--home", str(home)])
    assert done.exit_code == 2
    assert option in done.output
    assert not home.exists()


def test_the_object_names_every_image_with_its_seed_and_file(home):
    result = json.loads(generate(home, "--steps", "1", "--count", "2", "--seed", "8", "--json").stdout)
    assert written(shape(result)) == documented("sdlora generate PROMPT")
    assert [image["seed"] for image in result["images"]] == [8, 9]
    assert all(Path(image["path"]).is_file() for image in result["images"])
