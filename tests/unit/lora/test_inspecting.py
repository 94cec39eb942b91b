"""What a file is said to be: our own in every method, and files as other trainers write them."""

from __future__ import annotations

import hashlib
import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from sdlora.core.errors import WeightsError
from sdlora.lora.attach import attach_lora
from sdlora.lora.formats.inspect import inspect_adapter
from sdlora.models import parts
from tests.settings import filled_lora
from tests.unit.lora.perturb import perturb_adapter
from tests.unit.lora.test_files import save


def kohya_layer(name, inputs, rank=4, alpha=None, outputs=8):
    tensors = {
        f"{name}.lora_down.weight": torch.randn(rank, inputs),
        f"{name}.lora_up.weight": torch.randn(outputs, rank),
    }
    return tensors | ({f"{name}.alpha": torch.tensor(float(alpha))} if alpha is not None else {})


@pytest.mark.parametrize(
    ("config", "method", "ranks", "scale"),
    [
        (filled_lora(rank=4, alpha=6, targets="attention"), "LoRA", {4}, 1.5),
        (filled_lora(method="rslora", rank=4, alpha=3, targets="attention"), "LoRA", {4}, 1.5),
        (filled_lora(method="dora", rank=4, alpha=2, targets="attention"), "DoRA", {4}, 0.5),
        (filled_lora(method="loha", rank=4, alpha=2, targets="attention"), "LoHa", {4}, 0.5),
        (filled_lora(method="lokr", rank=1, alpha=2, targets="attention"), "LoKr", {1}, 2.0),
        (filled_lora(method="pissa", rank=3, targets="attention"), "LoRA", {6}, 1.0),
    ],
    ids=lambda value: getattr(value, "method", None),
)
@pytest.mark.parametrize("file", ["style.safetensors", "pytorch_lora_weights.safetensors"])
def test_our_own_files_say_what_was_trained(file, config, method, ranks, scale, base, tmp_path):
    denoiser = perturb_adapter(attach_lora(parts.load_denoiser(base), config))
    captions = ["an icon of a cat, flat", "an icon of a dog, flat", "flat"]
    adapter = save(tmp_path / "adapter", denoiser, config, base, captions=captions)
    facts = inspect_adapter(adapter.folder / file)
    assert (facts.method, set(facts.ranks)) == (method, ranks)
    assert set(facts.scales) == {scale}
    assert facts.layers == {"denoiser": sum(facts.ranks.values())}
    assert (facts.origin["base digest"], facts.origin["snapshot"]) == (base.digest, "5" * 64)
    assert facts.precisions == ("float32",)
    assert facts.words[0] == "flat"
    assert facts.origin["steps"] == "3"
    if file == "style.safetensors":
        content = (adapter.folder / file).read_bytes()
        assert facts.hashes["AutoV2"] == hashlib.sha256(content).hexdigest()[:10]
        assert facts.hashes["AutoV3"] == facts.hashes["sshs_model_hash"][:12]
        data = content[8 + int.from_bytes(content[:8], "little") :]
        assert facts.hashes["sshs_model_hash"] == hashlib.sha256(data).hexdigest()


def test_a_kohya_file_without_alpha_or_metadata_is_told_as_such(tmp_path):
    path = tmp_path / "theirs.safetensors"
    save_file(kohya_layer("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", 768), path)
    facts = inspect_adapter(path)
    assert facts.family == "Stable Diffusion 1.x"
    assert (facts.alphas, facts.scales) == ((), {1.0: 1})
    assert any("No alpha" in note for note in facts.notes)
    assert any("no metadata" in note for note in facts.notes)


def test_layers_of_several_ranks_and_text_encoders_are_counted_apart(tmp_path):
    tensors = kohya_layer("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 2048, 8, alpha=4)
    tensors |= kohya_layer("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k", 640, 16, alpha=4)
    tensors |= kohya_layer("lora_te1_text_model_encoder_layers_0_mlp_fc1", 768, 8, alpha=4)
    tensors |= kohya_layer("lora_te2_text_model_encoder_layers_0_mlp_fc1", 1280, 8, alpha=4)
    metadata = {
        "ss_tag_frequency": json.dumps({"10_person": {"zwx": 12, "portrait": 3}}),
        "ss_sd_model_name": "xl.safetensors",
        "ss_steps": "1000",
        "sshs_model_hash": "0" * 64,
    }
    path = tmp_path / "xl.safetensors"
    save_file(tensors, path, metadata)
    facts = inspect_adapter(path)
    assert facts.family == "Stable Diffusion XL"
    assert facts.layers == {"denoiser": 2, "text_encoder": 1, "text_encoder_2": 1}
    assert (facts.ranks, facts.scales) == ({8: 3, 16: 1}, {0.5: 3, 0.25: 1})
    assert facts.words == ("zwx", "portrait")
    assert (facts.origin["base model"], facts.origin["steps"]) == ("xl.safetensors", "1000")
    assert any("Its tensors were changed" in note for note in facts.notes)


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (("transformer.single_transformer_blocks.0.attn.to_q.lora_{}.weight", "A", "B"), "FLUX.1"),
        (("transformer.transformer_blocks.0.attn.add_q_proj.lora_{}.weight", "A", "B"), "Stable Diffusion 3"),
        (
            ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora.{}.weight", "down", "up"),
            "Stable Diffusion 2.x",
        ),
        (("unet.mid.attn2.processor.to_k_lora.{}.weight", "down", "up"), "Stable Diffusion 2.x"),
    ],
)
def test_files_in_diffusers_names_old_and_new_are_read(names, family, tmp_path):
    pattern, down, up = names
    path = tmp_path / "d.safetensors"
    save_file({pattern.format(down): torch.randn(4, 1024), pattern.format(up): torch.randn(8, 4)}, path)
    facts = inspect_adapter(path)
    assert (facts.layout, facts.method, facts.ranks) == ("diffusers / peft", "LoRA", {4: 1})
    assert facts.family == family


CARD = """---
base_model: stabilityai/stable-diffusion-xl-base-1.0
tags:
- text-to-image
- lora
instance_prompt: a photo of sks dog
---
# A dog
"""


@pytest.mark.parametrize(
    ("card", "words", "model"),
    [
        (CARD, ("a photo of sks dog",), "stabilityai/stable-diffusion-xl-base-1.0"),
        (CARD.replace("- lora", "- dogs"), (), None),  # a card of something else
        ("---\n: [\n---\n", (), None),
        ("# Only a title", (), None),
    ],
)
def test_a_plain_diffusers_file_is_told_with_the_words_of_the_card_beside_it(card, words, model, tmp_path):
    path, key = tmp_path / "pytorch_lora_weights.safetensors", "unet.mid.attn2.to_k.lora_{}.weight"
    save_file({key.format("A"): torch.randn(4, 2048), key.format("B"): torch.randn(8, 4)}, path)
    (tmp_path / "README.md").write_text(card)
    facts = inspect_adapter(path)
    assert (facts.words, facts.origin.get("base model")) == (words, model)


def test_another_file_in_an_adapters_folder_does_not_get_its_words(base, tmp_path):
    config = filled_lora(rank=2, targets="attention")
    denoiser = perturb_adapter(attach_lora(parts.load_denoiser(base), config))
    folder = save(tmp_path / "adapter", denoiser, config, base, captions=["flat"]).folder
    save_file(kohya_layer("lora_unet_x", 8, alpha=1), folder / "theirs.safetensors")
    facts = inspect_adapter(folder / "theirs.safetensors")
    assert (facts.words, facts.origin) == ((), {})
    (folder / "style.safetensors").unlink()  # the words are gone, but not what adapter.json has
    facts = inspect_adapter(folder)
    assert (facts.words, facts.origin["steps"], facts.origin["title"]) == ((), "3", "style")


@pytest.mark.parametrize(
    "metadata", [{"ss_tag_frequency": "[1]"}, {"ss_tag_frequency": "{"}, {"lora_adapter_metadata": "7"}]
)
def test_strange_metadata_costs_the_words_only(metadata, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(kohya_layer("lora_unet_x", 8, alpha=1), path, metadata)
    assert inspect_adapter(path).words == ()


def test_what_is_no_adapter_is_one_clear_message(tmp_path):
    pickled = tmp_path / "lora.pt"
    pickled.write_bytes(pickle.dumps({}))
    torn = tmp_path / "torn.safetensors"
    save_file(kohya_layer("lora_unet_x", 8), torn)
    torn.write_bytes(torn.read_bytes()[:-5])
    disguised = tmp_path / "disguised.safetensors"
    disguised.write_bytes(pickle.dumps({}))
    model = tmp_path / "model.safetensors"
    save_file({"conv_in.weight": torch.zeros(2)}, model)
    for path, message in (
        (pickled, r"lora\.pt is a pickle"),
        (torn, r"torn\.safetensors is damaged"),
        (disguised, r"disguised\.safetensors is damaged"),
        (model, r"holds no adapter.*conv_in\.weight"),
        (tmp_path / "none.safetensors", "There is no file"),
        (tmp_path / "empty", "There is no file"),
    ):
        with pytest.raises(WeightsError, match=message):
            inspect_adapter(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(WeightsError, match=r"holds no \.safetensors file"):
        inspect_adapter(tmp_path / "folder")
