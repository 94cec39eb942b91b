"""Every method: it starts at the base, trains, saves, loads, merges, and means the same to every tool."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from sdlora.core.errors import TargetModuleError
from sdlora.lora.attach import adapter_parameters, attach_lora
from sdlora.lora.config import LoraConfig
from sdlora.lora.formats.kohya import read_kohya_file
from sdlora.lora.layers import base_weights, collect_updates
from sdlora.lora.load import load_adapter, merge
from sdlora.models import parts
from sdlora.models.stable_diffusion import StableDiffusion
from tests.settings import filled_lora
from tests.unit.lora.perturb import perturb_adapter
from tests.unit.lora.test_files import draw, save

METHODS = [
    filled_lora(method="rslora", rank=4, alpha=3),
    filled_lora(method="dora", rank=4, alpha=2),
    filled_lora(method="loha", rank=4, alpha=2),
    filled_lora(method="lokr", rank=2, alpha=3),
    filled_lora(method="lokr", rank=8, alpha=4),  # so wide that most layers hold both matrices whole
    filled_lora(method="pissa", rank=4, alpha=8),
]
every_method = pytest.mark.parametrize("config", METHODS, ids=lambda config: f"{config.method}-{config.rank}")


def trained(base, config):
    """An adapter whose every tensor has moved from its start."""
    unet = attach_lora(parts.load_denoiser(base), config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter_parameters(unet).values():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return unet


@pytest.mark.parametrize("config", [filled_lora(rank=4), *METHODS], ids=lambda config: f"{config.method}-{config.rank}")
def test_a_new_adapter_predicts_what_the_base_does_and_its_tensors_alone_learn(config, base, inputs):
    unet = parts.load_denoiser(base)
    expected = unet(*inputs).sample
    attach_lora(unet, config)
    torch.testing.assert_close(unet(*inputs).sample, expected, atol=1e-4, rtol=1e-4)
    unet(*inputs).sample.square().mean().backward()
    trainable = adapter_parameters(unet)
    assert trainable
    assert all(parameter.grad is not None for parameter in trainable.values())
    assert all(p.grad is None for name, p in unet.named_parameters() if name not in trainable)


@every_method
def test_merged_weights_predict_what_the_adapter_beside_them_does(config, base, inputs):
    unet = trained(base, config).eval()
    expected = unet(*inputs).sample
    assert (expected - parts.load_denoiser(base)(*inputs).sample).abs().max() > 0.05
    torch.testing.assert_close(merge(unet)(*inputs).sample, expected, atol=2e-4, rtol=2e-4)
    assert not hasattr(unet, "peft_config")


@every_method
def test_a_saved_adapter_attached_or_merged_on_the_original_base_draws_the_same(config, base, tmp_path):
    model = StableDiffusion.from_ref(base, precision="fp32")
    model.denoiser = trained(base, config).eval()
    expected = draw(model).int()
    assert (expected - draw(StableDiffusion.from_ref(base, precision="fp32")).int()).abs().float().mean() > 1
    adapter = save(tmp_path / "adapter", model.denoiser, config, base)
    reloaded = StableDiffusion.from_ref(base, precision="fp32")
    load_adapter(reloaded.denoiser, adapter, base)
    assert adapter_parameters(reloaded.denoiser)
    for other in (reloaded, StableDiffusion.from_ref(base, adapter, precision="fp32")):
        assert (draw(other).int() - expected).abs().max() <= 1


@every_method
def test_the_kohya_file_changes_every_layer_as_comfyui_and_lycoris_would(config, base, tmp_path):
    unet = trained(base, config)
    original = dict(parts.load_denoiser(base).named_parameters())
    adapter = save(tmp_path / "adapter", unet, config, base)
    tensors = load_file(adapter.folder / "style.safetensors")
    layers = collect_updates(unet)
    merged = dict(merge(unet).named_parameters())
    for name in layers:
        weight = original[f"{name}.weight"].detach()
        layer = {
            key.removeprefix(f"{kohya_name(name)}."): t
            for key, t in tensors.items()
            if key.startswith(f"{kohya_name(name)}.")
        }
        rule = {"loha": loha_rule, "lokr": lokr_rule}.get(config.method, lora_rule)
        changed = weight + rule(layer, weight)
        torch.testing.assert_close(changed, merged[f"{name}.weight"].detach(), atol=1e-4, rtol=1e-4)
    assert {key.split(".")[0] for key in tensors} == {kohya_name(name) for name in layers}


def kohya_name(layer):
    return "lora_unet_" + layer.replace(".", "_")


# The rules of comfy/weight_adapter and lycoris/modules, in words of our own; the code under test has others.


def lora_rule(layer, weight):
    up, down = layer["lora_up.weight"], layer["lora_down.weight"]
    delta = (torch.einsum("or,ri->oi", up.flatten(1), down.flatten(1)) * layer["alpha"] / len(down)).reshape(
        weight.shape
    )
    if "dora_scale" not in layer:
        return delta
    norm = (weight + delta).reshape(len(weight), -1).pow(2).sum(1).sqrt().reshape(-1, *[1] * (weight.ndim - 1))
    assert layer["dora_scale"].shape == norm.shape
    return (weight + delta) * layer["dora_scale"] / norm - weight


def loha_rule(layer, weight):
    first, second = (torch.mm(layer[f"hada_w{side}_a"], layer[f"hada_w{side}_b"]) for side in "12")
    return (first * second * layer["alpha"] / layer["hada_w1_b"].shape[0]).reshape(weight.shape)


def lokr_rule(layer, weight):
    if "lokr_w2" in layer:
        large, scale = layer["lokr_w2"], 1.0
    else:
        large, scale = layer["lokr_w2_a"] @ layer["lokr_w2_b"], layer["alpha"] / layer["lokr_w2_b"].shape[0]
    small = layer["lokr_w1"]
    blocks = torch.einsum("am,bn->abmn", small, large.flatten(1))  # out = a * b, in = m * n (* k * k)
    return (blocks.reshape(small.shape[0] * large.shape[0], -1) * scale).reshape(weight.shape)


def test_both_forms_of_a_kronecker_product_occur(base):
    def whole(rank):
        updates = collect_updates(trained(base, filled_lora(method="lokr", rank=rank)))
        return {"lokr_w2" in update.tensors() for update in updates.values()}

    assert whole(2) == {True, False}
    assert True in whole(8)


def test_comfyui_divides_a_dora_by_other_lengths(base, tmp_path):
    config = METHODS[1]
    unet = trained(base, config)
    adapter = save(tmp_path / "adapter", unet, config, base)
    path = adapter.folder / "style.safetensors"
    theirs, ours = read_kohya_file(path, "comfyui"), read_kohya_file(path, "lycoris")
    for name, weight in base_weights(unet).items():
        down = ours[kohya_name(name)](weight.detach())
        assert not torch.allclose(theirs[kohya_name(name)](weight.detach()), down, atol=1e-3)


def test_pissa_takes_the_largest_singular_values_into_the_adapter_and_saves_twice_the_rank(base, tmp_path):
    config = filled_lora(method="pissa", rank=3, targets="attention")
    original, unet = parts.load_denoiser(base), attach_lora(parts.load_denoiser(base), config)
    name, residual = next(iter(base_weights(unet).items()))
    values = torch.linalg.svdvals(original.get_submodule(name).weight)
    torch.testing.assert_close(torch.linalg.svdvals(residual)[:-3], values[3:], atol=1e-4, rtol=1e-4)
    untouched = collect_updates(unet)[name]
    assert untouched.rank == 6
    assert untouched.change(residual).abs().max() < 1e-5
    assert (collect_updates(perturb_adapter(unet))[name].scale) == pytest.approx(1.0)


def test_pissa_on_a_convolution_is_refused_by_method_layer_and_type(base):
    with pytest.raises(TargetModuleError, match=r"lora\.method: pissa cannot change layer .*conv1.*Conv2d"):
        attach_lora(parts.load_denoiser(base), filled_lora(method="pissa", rank=2, target_modules=("to_q", "conv1")))
    assert filled_lora(method="pissa").targets == "attention+ff"
    assert filled_lora(method="dora").targets == "all"


@pytest.mark.parametrize("method", ["rslora", "dora", "loha", "lokr", "pissa"])
def test_wrong_patterns_and_ranks_are_refused_for_every_method(method, base):
    unet = parts.load_denoiser(base)
    with pytest.raises(TargetModuleError, match=r"lora\.target_modules: 'to_kk' match no layer"):
        attach_lora(unet, filled_lora(method=method, rank=2, target_modules=("to_q", "to_kk")))
    with pytest.raises(TargetModuleError, match=r"lora\.rank: 64 .*or less"):
        attach_lora(unet, filled_lora(method=method, rank=64))
    assert not adapter_parameters(unet)


@pytest.mark.parametrize("method", ["loha", "lokr", "pissa"])
def test_dropout_is_refused_where_a_method_has_none(method):
    with pytest.raises(ValueError, match=rf"dropout: 0\.1 cannot be used with method {method}"):
        LoraConfig(method=method, dropout=0.1)


def test_rslora_scales_with_the_root_of_the_rank_and_its_file_says_so_in_alpha(base, tmp_path):
    config = filled_lora(method="rslora", rank=4, alpha=3, targets="attention")
    assert config.scaling == 1.5
    adapter = save(tmp_path / "adapter", trained(base, config), config, base)
    alphas = {t.item() for key, t in load_file(adapter.folder / "style.safetensors").items() if key.endswith("alpha")}
    assert alphas == {6.0}  # 6 / 4 = 1.5, the scale that every tool computes
