from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from deployments.cli.app import app
from sdlora.lora.attach import attach_lora
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from tests.settings import filled_lora
from tests.tiny import tiny_base_model
from tests.unit.deployments.test_json_output import documented, shape, written
from tests.unit.lora.perturb import perturb_adapter
from tests.unit.lora.test_files import save


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("files")
    base = load_base_model(BaseModelConfig(source=str(tiny_base_model(home / "base"))), home)
    config = filled_lora(rank=2, targets="attention")
    save(home / "run" / "adapter", perturb_adapter(attach_lora(parts.load_denoiser(base), config)), config, base)
    return home


def test_inspect_tells_a_file_and_shows_other_peoples_text_as_it_is(made):
    result = invoke("inspect", made / "run" / "adapter" / "style.safetensors", "--home", made)
    assert result.exit_code == 0, result.output
    for shown in ("LoRA", "rank", "AutoV3", "style.safetensors", "denoiser"):
        assert shown in result.output
    facts = json.loads(invoke("inspect", made / "run" / "adapter" / "style.safetensors", "--json").stdout)
    assert written(shape(facts)) == documented("sdlora inspect FILE")
    assert facts["ranks"][0]["rank"] == 2
    missing = invoke("inspect", made / "none.safetensors")
    assert missing.exit_code == 1


def test_inspect_escapes_what_a_stranger_wrote_into_the_file(made, tmp_path):
    file, hostile = tmp_path / "hostile.safetensors", "\x1b[2Jowned\u202e\nhashes  fake"
    words = {"ss_tag_frequency": json.dumps({"a": {hostile: 3}}), "modelspec.trigger_phrase": hostile}
    metadata = {"modelspec.title": hostile, "ss_sd_model_name": hostile, "sshs_model_hash": hostile, **words}
    save_file(load_file(made / "run" / "adapter" / "style.safetensors"), file, metadata)
    told = invoke("inspect", file).output
    assert told.count(r"\x1b[2Jowned\u202e") >= 5
    assert "\x1b" not in told and "\u202e" not in told
    assert not any(line.strip().startswith("hashes") for line in told.splitlines())
    save_file({f"{hostile}.weight": torch.zeros(1)}, file)
    refused = invoke("inspect", file)
    assert refused.exit_code == 1
    assert r"\x1b[2Jowned\u202e" in refused.output and "\x1b" not in refused.output


def test_a_path_that_no_file_can_have_is_told(made):
    done = invoke("inspect", "x" * 300)
    assert done.exit_code == 1
    assert "File name too long. Correct the path." in " ".join(done.output.split())


def test_export_writes_from_a_run_folder_and_refuses_the_wrong_base(made, tmp_path):
    out = tmp_path / "half.safetensors"
    result = invoke("export", out, "--from", made / "run", "--dtype", "fp16", "--home", tmp_path)
    assert result.exit_code == 0, result.output
    assert {str(tensor.dtype) for tensor in load_file(out).values()} == {"torch.float16"}
    wrong = invoke("export", tmp_path / "m", "--from", made / "run", "--merged", "--home", tmp_path)
    assert wrong.exit_code == 1
    assert "was trained on the base model" in wrong.output
    merged = invoke(
        "export", tmp_path / "m", "--from", made / "run", "--merged", "--base", made / "base", "--home", tmp_path
    )
    assert merged.exit_code == 0, merged.output
    assert (tmp_path / "m" / "model_index.json").is_file()
    single = invoke("export", tmp_path / "m.safetensors", "--from", tmp_path / "m", "--home", tmp_path)
    assert single.exit_code == 0, single.output
    assert any(key.startswith("model.diffusion_model.") for key in load_file(tmp_path / "m.safetensors"))


def test_export_names_the_tools_that_would_misread_the_file(made, tmp_path):
    base = load_base_model(BaseModelConfig(source=str(made / "base")), made)
    config = filled_lora(method="dora", rank=2, targets="attention")
    save(tmp_path / "run" / "adapter", perturb_adapter(attach_lora(parts.load_denoiser(base), config)), config, base)
    result = invoke("export", tmp_path / "one.safetensors", "--from", tmp_path / "run", "--home", tmp_path)
    assert result.stdout == f"{tmp_path / 'one.safetensors'}\n"
    assert "For ComfyUI and Forge export with `--for comfyui`." in result.stderr
    again = invoke("export", tmp_path / "2.safetensors", "--from", tmp_path / "run", "--home", tmp_path, "--json")
    assert written(shape(json.loads(again.stdout))) == documented("sdlora export FILE")
    assert json.loads(again.stdout)["path"] == str(tmp_path / "2.safetensors")
    plain = ("--from", made / "run", "--home", tmp_path)
    assert invoke("export", tmp_path / "plain.safetensors", *plain, "--base", made / "base").stderr == ""
    compared = f"not compared with those of the base model {base.digest[:12]}: name it with --base"
    assert compared in invoke("export", tmp_path / "unknown.safetensors", *plain).stderr


def test_a_folder_without_adapter_and_opposite_options_are_refused(made, tmp_path):
    assert "holds neither adapter.json" in invoke("export", tmp_path / "x", "--from", tmp_path).output
    assert invoke("export", tmp_path / "x", "--from", made, "--version", "1").exit_code == 2
    assert invoke("export", tmp_path / "x", "--base", made).exit_code == 2
