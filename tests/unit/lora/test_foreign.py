"""A LoRA of another program becomes an adapter that changes every layer as the file does, or is refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdlora.adapter import LoRA
from sdlora.core.errors import WeightsError
from sdlora.lora.attach import attach_lora
from sdlora.lora.check import check_files
from sdlora.lora.foreign import convert_adapter
from sdlora.lora.formats.diffusers import read_diffusers_file
from sdlora.lora.text import attach_to_text_encoder
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.families import family_of
from sdlora.models.files.sources import load_base_model
from sdlora.models.stable_diffusion import StableDiffusion
from tests import families
from tests.settings import filled_lora
from tests.tiny import tiny_base_model
from tests.unit.lora.perturb import perturb_adapter
from tests.unit.lora.test_files import draw, save

ADAPTER_FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A tiny base model by family, each built once."""
    home, made = tmp_path_factory.mktemp("bases"), {}

    def base(family):
        if family not in made:
            folder = home / family
            tiny_base_model(folder) if family == "sd1" else families.build(family, folder)
            made[family] = load_base_model(BaseModelConfig(source=str(folder)), home)
        return made[family]

    return base


def trained(base, folder, config, *, text=False):
    """An adapter of ours, whose files stand for those of other programs."""
    denoiser = perturb_adapter(attach_lora(parts.load_denoiser(base), config))
    encoders = {}
    if text:
        model = StableDiffusion.from_ref(base, precision="fp32")
        for part in family_of(base.folder).text_parts:
            encoder = model.text_encoders[part.folder].requires_grad_(False)
            encoders[part.folder] = perturb_adapter(attach_to_text_encoder(encoder, part, config, seed=1), seed=2)
    return save(folder, denoiser, config, base, encoders)


def changes(folder, base):
    """The change of each layer's weight, as diffusers reads it; of zero layers none."""
    family = family_of(base.folder)
    weights = dict(parts.load_denoiser(base).named_parameters())
    read = read_diffusers_file(folder / ADAPTER_FILE)
    found = {}
    for name, change in read.items():
        part, _, layer = name.partition(".")
        weight = weights[f"{layer}.weight"].detach() if part == family.layout.denoiser else torch.zeros(32, 32)
        found[name] = change(weight)
    return {name: change for name, change in found.items() if change.abs().max() > 0}


def assert_same_changes(folder, other, base):
    ours, theirs = changes(folder, base), changes(other, base)
    assert ours.keys() == theirs.keys() != set()
    for name, change in theirs.items():
        torch.testing.assert_close(ours[name], change, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3", "flux"])
@pytest.mark.parametrize("file", ["style.safetensors", ADAPTER_FILE])
def test_a_file_of_every_family_and_layout_changes_what_it_changed(family, file, bases, tmp_path):
    base = bases(family)
    theirs = trained(base, tmp_path / "theirs", filled_lora(rank=2, alpha=3, targets="attention+ff"))
    converted = convert_adapter(theirs.folder / file, base, tmp_path / "ours", "mine")
    assert_same_changes(converted.folder, theirs.folder, base)
    manifest = check_files(converted.folder, base)
    assert (manifest.name, manifest.base_digest, manifest.snapshot_digest) == ("mine", base.digest, "unknown")


@pytest.mark.parametrize("file", ["style.safetensors", ADAPTER_FILE])
def test_a_dora_and_convolutions_keep_their_changes(file, bases, tmp_path):
    base = bases("sd1")
    theirs = trained(base, tmp_path / "theirs", filled_lora(method="dora", rank=2, alpha=3))
    converted = convert_adapter(theirs.folder / file, base, tmp_path / "ours", "mine")
    assert_same_changes(converted.folder, theirs.folder, base)
    assert check_files(converted.folder, base).lora.method == "dora"


def test_layers_of_other_ranks_and_scales_are_exact_too(bases, tmp_path):
    base = bases("sd1")
    theirs = trained(base, tmp_path / "theirs", filled_lora(rank=2, alpha=2))
    tensors = load_file(theirs.folder / "style.safetensors")
    layers = sorted({key.removesuffix(".alpha") for key in tensors if key.endswith(".alpha")})
    for index, layer in enumerate(layers):
        scale = 1 + index
        tensors[f"{layer}.alpha"] *= scale / 2
        if index % 2:  # a single column of the rank, so at half the rank twice the scale
            tensors[f"{layer}.lora_down.weight"] = tensors[f"{layer}.lora_down.weight"][:1].clone()
            tensors[f"{layer}.lora_up.weight"] = tensors[f"{layer}.lora_up.weight"][:, :1].clone()
    path = tmp_path / "mixed.safetensors"
    save_file(tensors, path)
    converted = convert_adapter(path, base, tmp_path / "ours", "mine")
    check_files(converted.folder, base)
    read = read_diffusers_file(converted.folder / ADAPTER_FILE)
    names = {f"unet.{layer}": f"lora_unet_{layer.replace('.', '_')}" for layer in layers_of(read)}
    assert sorted(names.values()) == layers
    for name, kohya in names.items():
        down, up = tensors[f"{kohya}.lora_down.weight"], tensors[f"{kohya}.lora_up.weight"]
        expected = (up.flatten(1) @ down.flatten(1)) * (tensors[f"{kohya}.alpha"] / len(down))
        shape = (up.shape[0], *down.shape[1:])
        torch.testing.assert_close(read[name](torch.zeros(shape)), expected.view(shape), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("whole", [True, False])
def test_a_layer_has_the_alpha_that_pefts_settings_give_it_by_name(whole, bases, tmp_path):
    base = bases("sd1")
    theirs = trained(base, tmp_path / "theirs", filled_lora(rank=2, alpha=2))
    tensors = load_file(theirs.folder / ADAPTER_FILE)
    layer = next(key for key in tensors if key.endswith("attn1.to_q.lora_A.weight")).removesuffix(".lora_A.weight")
    name = layer.removeprefix("unet.")
    key = name if whole else name.split(".", 1)[1]
    settings = {"unet.r": 2, "unet.lora_alpha": 2, "unet.alpha_pattern": {key: 6, "attn9": 100}}
    path = tmp_path / "pattern.safetensors"
    save_file(tensors, path, metadata={"lora_adapter_metadata": json.dumps(settings)})
    ours = read_diffusers_file(convert_adapter(path, base, tmp_path / "ours", "mine").folder / ADAPTER_FILE)
    before = read_diffusers_file(theirs.folder / ADAPTER_FILE)
    changed = set()
    for one in ours:
        down, up = tensors[f"{one}.lora_A.weight"], tensors[f"{one}.lora_B.weight"]
        zeros = torch.zeros((up.shape[0], *down.shape[1:]))
        factor = 3 if one.endswith(f".{key}") else 1
        torch.testing.assert_close(ours[one](zeros), factor * before[one](zeros), atol=1e-5, rtol=1e-5)
        changed |= {one} if factor == 3 else set()
    assert changed == {layer} if whole else layer in changed and len(changed) < len(ours)


def layers_of(read):
    return [name.removeprefix("unet.") for name in read]


@pytest.mark.parametrize("form", ["peft", "old diffusers", "half precision"])
def test_other_forms_of_names_and_precisions_are_read(form, bases, tmp_path):
    base, path = bases("sd1"), tmp_path / "other.safetensors"
    theirs = trained(base, tmp_path / "theirs", filled_lora(rank=2, alpha=2, target_modules=("to_q", "to_v")))
    tensors = load_file(theirs.folder / ADAPTER_FILE)
    if form == "peft":
        tensors = {f"base_model.model.{key.removeprefix('unet.')}": tensor for key, tensor in tensors.items()}
    elif form == "old diffusers":
        tensors = {
            key.replace(".to_", ".processor.to_")
            .replace(".lora_A.weight", "_lora.down.weight")
            .replace(".lora_B.weight", "_lora.up.weight"): tensor
            for key, tensor in tensors.items()
        }
    else:
        tensors = {key: tensor.half().float() for key, tensor in tensors.items()}
        save_file(tensors, theirs.folder / ADAPTER_FILE)
        tensors = {key: tensor.half() for key, tensor in tensors.items()}
    save_file(tensors, path)
    converted = convert_adapter(path, base, tmp_path / "ours", "mine")
    ours = load_file(converted.folder / ADAPTER_FILE)
    for key, tensor in load_file(theirs.folder / ADAPTER_FILE).items():
        assert torch.equal(ours[key], tensor)


def test_text_encoders_keep_their_changes(bases, tmp_path):
    base = bases("sd1")
    theirs = trained(base, tmp_path / "theirs", filled_lora(rank=2, alpha=3, text_encoder_rank=2), text=True)
    converted = convert_adapter(theirs.folder / "style.safetensors", base, tmp_path / "ours", "mine")
    assert check_files(converted.folder, base).lora.text_encoder_rank == 2
    ours, before = (load_file(folder / ADAPTER_FILE) for folder in (converted.folder, theirs.folder))
    text = [key for key in before if key.startswith("text_encoder.")]
    assert text
    assert all(torch.equal(ours[key], before[key]) for key in text)
    tensors = load_file(theirs.folder / "style.safetensors")
    name = next(key for key in tensors if key.startswith("lora_te") and "q_proj" in key).split(".")[0]
    wrong = name.replace("self_attn_q_proj", "mlp_fc1")
    width = family_of(base.folder).settings("text_encoder")
    tensors[f"{wrong}.lora_down.weight"] = torch.ones(2, width["hidden_size"])
    tensors[f"{wrong}.lora_up.weight"] = torch.zeros(width["intermediate_size"], 2)
    save_file(tensors, tmp_path / "mlp.safetensors")
    convert_adapter(tmp_path / "mlp.safetensors", base, tmp_path / "zero", "mine")  # it changes nothing there
    tensors[f"{wrong}.lora_up.weight"] += 1
    save_file(tensors, tmp_path / "mlp.safetensors")
    with pytest.raises(WeightsError, match=r"changes 'encoder\.layers\.\d\.mlp\.fc1' of text_encoder.*only the atten"):
        convert_adapter(tmp_path / "mlp.safetensors", base, tmp_path / "other", "mine")


def test_a_converted_adapter_draws_what_the_file_draws(bases, tmp_path):
    base = bases("sd1")
    theirs = trained(base, tmp_path / "theirs", filled_lora(rank=2, alpha=3))
    expected = draw(StableDiffusion.from_ref(base, theirs, precision="fp32"))
    model = StableDiffusion.from_ref(base, precision="fp32")
    assert not torch.equal(draw(model), expected)
    lora = LoRA.from_file(model, theirs.folder / "style.safetensors", tmp_path / "ours", name="mine")
    assert (lora.config.rank, lora.config.scaling) == (2, 1.0)
    assert (draw(lora.update_parameters()).int() - expected.int()).abs().max() <= 1


def test_equal_files_give_equal_adapters(bases, tmp_path):
    base = bases("sd1")
    theirs = trained(base, tmp_path / "theirs", filled_lora(rank=2, alpha=3, targets="attention"))
    first, second = (
        convert_adapter(theirs.folder / "style.safetensors", base, tmp_path / name, "mine") for name in ("a", "b")
    )
    assert (first.digest, first.run_digest) == (second.digest, second.run_digest)
    assert first.run_digest != theirs.run_digest


@pytest.mark.parametrize("family", ["sdxl", "sd2", "flux"])
def test_a_file_of_another_base_is_refused_with_what_fits(family, bases, tmp_path):
    theirs = trained(bases("sd1"), tmp_path / "theirs", filled_lora(rank=2, targets="attention+ff"))
    title = family_of(bases(family).folder).layout.title
    with pytest.raises(WeightsError, match=rf"does not fit the base model, which is {title}: .*looks like one for"):
        convert_adapter(theirs.folder / "style.safetensors", bases(family), tmp_path / "ours", "mine")
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("method", "message"), [("loha", "is a LoHa. Only a LoRA or a DoRA"), ("lokr", "is a LoKr. Only a LoRA or a DoRA")]
)
def test_other_methods_are_refused(method, message, bases, tmp_path):
    theirs = trained(bases("sd1"), tmp_path / "theirs", filled_lora(method=method, rank=2, targets="attention"))
    with pytest.raises(WeightsError, match=message):
        convert_adapter(theirs.folder / "style.safetensors", bases("sd1"), tmp_path / "ours", "mine")


def test_a_layer_under_two_names_is_refused(bases, tmp_path):
    theirs = trained(bases("sd1"), tmp_path / "theirs", filled_lora(rank=2, target_modules=("to_q",)))
    both = load_file(theirs.folder / "style.safetensors") | load_file(theirs.folder / ADAPTER_FILE)
    save_file(both, tmp_path / "both.safetensors")
    with pytest.raises(WeightsError, match=r"both\.safetensors changes '.*to_q' twice"):
        convert_adapter(tmp_path / "both.safetensors", bases("sd1"), tmp_path / "ours", "mine")


def test_a_damaged_file_is_refused(bases, tmp_path):
    theirs = trained(bases("sd1"), tmp_path / "theirs", filled_lora(rank=2, targets="attention"))
    tensors = load_file(theirs.folder / "style.safetensors")
    next(tensor for key, tensor in tensors.items() if key.endswith("lora_up.weight")).view(-1)[0] = float("nan")
    save_file(tensors, tmp_path / "nan.safetensors")
    with pytest.raises(WeightsError, match=r"nan\.safetensors cannot be used: 1 of .* NaN or infinite"):
        convert_adapter(tmp_path / "nan.safetensors", bases("sd1"), tmp_path / "ours", "mine")
