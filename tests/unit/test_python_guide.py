"""The quick start of docs/python.md, run as it stands, and the public names with strings as paths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

import sdlora
from sdlora.models.config import BaseModelConfig
from tests.tiny import draw_images, tiny_base_model

GUIDE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
SETTINGS = {
    "name": "shapes",
    "data": {"held_out_fraction": 0.4},
    "base_model": {"source": "base"},
    "lora": {"rank": 2, "targets": "attention"},
    "training": {"steps": 2, "batch_size": 2, "precision": "fp32"},
    "evaluation": {"min_prompts": 2, "max_prompts": 4, "steps": 2, "denoising_steps": 2, "resamples": 100}
    | {"fid_resamples": 100, "shown_prompts": 2},
}


def test_the_quick_start_collects_trains_draws_and_compares(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw_images(tmp_path / "photos", 16)
    tiny_base_model(tmp_path / "base")
    Path("style.yaml").write_text(yaml.safe_dump(SETTINGS))
    (code,) = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "docs/python.md", "exec"), names)
    assert Image.open("car.png").size == (64, 64)
    base_kid, adapter_kid = map(float, capsys.readouterr().out.rpartition(":")[2].split())
    assert base_kid != adapter_kid
    assert {path.name for path in Path("state", "duel").iterdir()} >= {"duel.json", "grid.png"}


def test_the_guide_names_all_public_names():
    table = GUIDE[GUIDE.index("## Names") :]
    assert set(sdlora.__all__) <= set(re.findall(r"\b\w+\b", " ".join(re.findall(r"`([^`]+)`", table))))


def test_public_paths_may_be_strings(tmp_path):
    config = tmp_path / "style.yaml"
    config.write_text("name: icons\n")
    assert sdlora.load_config(str(config)).name == "icons"
    with pytest.raises(sdlora.SdloraError, match="There is no configuration file"):
        sdlora.load_config(str(tmp_path / "none.yaml"))
    home = str(tmp_path / "home")
    sdlora.ImageStore.open(home).close()
    assert (tmp_path / "home" / "images.db").is_file()
    folder = str(tiny_base_model(tmp_path / "base"))
    base = sdlora.load_base_model(BaseModelConfig(source=folder), home)
    assert sdlora.BaseModelRef(name="tiny", folder=folder, digest=base.digest).folder == Path(folder)
