"""The Python of each model card, run as it stands: it draws with what was trained."""

from __future__ import annotations

import json
import re

import pytest
import torch

from sdlora.lora.formats.compatibility import FAMILIES, TEXT_FAMILIES
from sdlora.models.files import sources
from sdlora.release.model_card import render_model_card
from tests.unit.release.made_record import made_record
from tests.unit.release.trained import Trained, merge_layers, plain_state


def code_of(card):
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return code


def run(code, folder, base):
    code = code.replace("path/to/this/folder", str(folder)).replace(f"path/to/{base.name}", str(base.folder))
    names = {}
    exec(compile(code, "card", "exec"), names)
    return names["pipeline"]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_code_of_a_card_makes_the_stock_pipeline_with_the_adapter(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = Trained(name, tmp_path)
    text = name in TEXT_FAMILIES
    for method in (
        ("lora", "rslora", "pissa", "dora", "loha", "lokr") if name == "sd1" else ("lora", "dora", "loha", "lokr")
    ):
        adapter, trained = base.make(method, text)
        settings = {"lora": {"method": method, "text_encoder_rank": 2 if text else None}}
        record = made_record(tmp_path / method, base_name=base.base.name, family=name, settings=settings)
        pipeline = run(code_of(render_model_card(record)), adapter.folder, base.base)
        assert type(pipeline).__name__ == base.family.layout.pipeline
        networks = {part: getattr(pipeline, part) for part in base.parts}
        for network in networks.values():
            merge_layers(network)
        changes = base.changes({part: plain_state(network) for part, network in networks.items()})
        assert changes.keys() == trained.keys(), method
        for key, change in trained.items():
            torch.testing.assert_close(changes[key], change, atol=1e-3, rtol=1e-3)


def test_a_card_names_method_family_and_the_tools_that_read_its_file(tmp_path):
    plain = render_model_card(made_record(tmp_path, base_name="mine", family="flux"))
    assert "A LoRA adapter for the FLUX.1 base model `mine`" in plain
    assert "`icons.safetensors` is for ComfyUI, Forge, sd-scripts, LyCORIS.\nThe adapter fits" in plain
    settings = {"lora": {"method": "loha", "text_encoder_rank": None}}
    other = render_model_card(made_record(tmp_path, base_name="mine", family="sdxl", settings=settings))
    assert "The loader of diffusers does not know LoHa." in other
    assert "- sd-scripts: nothing of this LoHa is loaded, without an error." in other


def test_a_base_of_the_hub_is_named_with_its_commit(tmp_path):
    settings = {"base_model": {"source": "org/model", "revision": "a" * 40}}
    card = render_model_card(made_record(tmp_path, base_name="org/model", family="sdxl", settings=settings))
    assert f'from_pretrained("org/model", revision="{"a" * 40}")' in card


def test_the_code_for_the_embedded_base_finds_it(tmp_path):
    code = code_of(render_model_card(made_record(tmp_path)))
    assert json.dumps(str(sources.EMBEDDED)) == json.dumps(
        eval(code.split("from_pretrained(")[1].split(")\n")[0], {"sdlora": __import__("sdlora")})
    )
