"""Whatever an adapter's file or its neighbours hold, the answer is facts or one of our own errors.

`benchmarks/fuzz_weights.py` runs the same mutations for minutes.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sdlora.core.errors import WeightsError
from sdlora.lora.attach import attach_lora
from sdlora.lora.formats.inspect import inspect_adapter
from sdlora.models import parts
from sdlora.models.adapter_file import METADATA_KEY
from tests.foreign import consistent_file, json_text, tensor_file
from tests.settings import filled_lora
from tests.unit.lora.perturb import perturb_adapter
from tests.unit.lora.test_files import save
from tests.unit.lora.test_inspecting import kohya_layer

few = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def inspected(path):
    try:
        facts = inspect_adapter(path)
    except WeightsError:
        return None
    assert len(json.dumps(asdict(facts))) < 100_000
    return facts


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    path = tmp_path_factory.mktemp("theirs") / "theirs.safetensors"
    tensors = kohya_layer("lora_unet_x", 8, alpha=1) | {
        "lora_unet_y.lokr_w1": torch.ones(2, 2),
        "lora_unet_y.lokr_w2_a": torch.ones(4, 2),
        "lora_unet_y.lokr_w2_b": torch.ones(2, 4),
        **{f"lora_unet_z.hada_w{n}": torch.ones(4, 4) for n in ("1_a", "1_b", "2_a", "2_b")},
    }
    metadata = {
        "ss_tag_frequency": json.dumps({"10_a": {"b": 1, "c": 2}}),
        "lora_adapter_metadata": json.dumps({"unet.r": 4, "unet.lora_alpha": 2.0}),
        "modelspec.title": "title",
    }
    save_file(tensors, path, metadata)
    return path


@few
@given(data=st.data())
def test_any_tensor_file_is_inspected_or_refused(data, theirs, tmp_path):
    path = tmp_path / "theirs.safetensors"
    content = theirs.read_bytes()
    path.write_bytes(data.draw(tensor_file(content) | consistent_file(content)))
    inspected(path)


@few
@given(data=st.data())
def test_any_metadata_costs_words_only(data, theirs, tmp_path):
    path = tmp_path / "theirs.safetensors"
    tags = data.draw(json_text({"10_a": {"b": 1, "c": 2.5}}))
    settings = data.draw(json_text({"r": 4, "lora_alpha": 2.0}))
    metadata = {"ss_tag_frequency": tags.decode(errors="replace"), METADATA_KEY: settings.decode(errors="replace")}
    save_file(kohya_layer("lora_unet_x", 8), path, metadata)
    assert inspected(path) is not None


@pytest.mark.parametrize(
    "tags",
    ["[" * 3000, "9" * 5000, '{"a": {"b": 1e999}}', '{"a": {"b": NaN}}', json.dumps({"a": {"x" * 10**6: 1}}), "5"],
    ids=lambda tags: tags[:12],
)
def test_tags_that_exhaust_a_parser_or_a_page_are_left_out_or_shortened(tags, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(kohya_layer("lora_unet_x", 8, alpha=1), path, {"ss_tag_frequency": tags, "modelspec.title": "t" * 10**6})
    facts = inspected(path)
    assert facts is not None
    assert all(len(text) <= 300 for text in (*facts.words, *facts.origin.values()))


@pytest.mark.parametrize(
    "front_matter",
    [
        "tags: " + "[" * 3000,
        "a: &a [lora]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=False))
        + "tags: *j",
        "a: &a {x: 1}\n"
        + "".join(
            f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n" for a, b in zip("abcdefghi", "bcdefghij", strict=False)
        )
        + "tags: [lora]",
        "tags: [lora]\ninstance_prompt: [1]",
        "tags: &t [*t]",
        "- lora",
    ],
    ids=["nested", "aliases", "merges", "types", "cycle", "list"],
)
def test_a_model_card_that_exhausts_a_parser_costs_its_words(front_matter, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(kohya_layer("lora_unet_x", 8, alpha=1), path)
    (tmp_path / "README.md").write_text(f"---\n{front_matter}\n---\n# Card")
    facts = inspected(path)
    assert facts is not None
    assert facts.words == ()


@pytest.fixture(scope="module")
def ours(base, tmp_path_factory):
    config = filled_lora(rank=2, targets="attention")
    denoiser = perturb_adapter(attach_lora(parts.load_denoiser(base), config))
    return save(tmp_path_factory.mktemp("ours") / "adapter", denoiser, config, base).folder


@few
@given(data=st.data())
def test_any_adapter_json_is_read_or_refused(data, ours, tmp_path):
    folder = shutil.copytree(ours, tmp_path / "adapter", dirs_exist_ok=True)
    manifest = json.loads((ours / "adapter.json").read_text())
    (folder / "adapter.json").write_bytes(data.draw(json_text(manifest)))
    inspected(folder)
