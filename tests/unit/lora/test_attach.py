from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from sdlora.core.errors import TargetModuleError
from sdlora.lora.attach import adapter_parameters, attach_lora
from sdlora.lora.config import LoraConfig, ResolvedLora
from sdlora.lora.layers import collect_updates
from sdlora.lora.targets import find_targets
from sdlora.models import parts
from tests.settings import filled_lora


@pytest.fixture
def unet(base):
    return parts.load_denoiser(base)


def test_the_seed_decides_the_start_and_leaves_the_global_generator_alone(base):
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    starts = [collect_updates(attach_lora(parts.load_denoiser(base), filled_lora(rank=2), seed)) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), state)
    name = next(iter(starts[0]))
    assert torch.equal(starts[0][name].down, starts[1][name].down)
    assert not torch.equal(starts[0][name].down, starts[2][name].down)


@pytest.mark.parametrize(
    ("targets", "kinds"),
    [
        ("attention", {"to_q", "to_k", "to_v", "0"}),
        ("attention+ff", {"to_q", "to_k", "to_v", "0", "proj", "2"}),
        (
            "all",
            {"to_q", "to_k", "to_v", "0", "proj", "2"}
            | {"conv1", "conv2", "conv_shortcut", "proj_in", "proj_out", "time_emb_proj"},
        ),
    ],
)
def test_presets_name_the_layers_they_say(unet, targets, kinds):
    attach_lora(unet, filled_lora(rank=2, targets=targets))
    assert {name.rsplit(".", 1)[-1] for name in collect_updates(unet)} == kinds


def test_one_wrong_pattern_is_an_error_even_if_the_others_match(unet):
    config = filled_lora(rank=2, target_modules=("to_q", "to_kk"))
    with pytest.raises(TargetModuleError, match=r"lora\.target_modules: 'to_kk' match no layer.*Nearest names: .*to_k"):
        attach_lora(unet, config)
    assert not adapter_parameters(unet)


def test_a_pattern_matches_whole_name_components_only(unet):
    with pytest.raises(TargetModuleError, match="'o_q'"):
        find_targets(unet, filled_lora(rank=2, target_modules=("o_q",)))


def test_a_rank_above_a_layers_width_is_refused_with_the_largest_that_fits(unet):
    with pytest.raises(TargetModuleError, match=r"lora\.rank: 16 .*\(8\).*Set lora\.rank to 8 or less"):
        attach_lora(unet, filled_lora(rank=16))
    attach_lora(unet, filled_lora(rank=8))


def test_alpha_follows_the_rank_unless_it_is_given():
    assert filled_lora(rank=4).scaling == 1.0
    assert filled_lora(rank=4, alpha=8).scaling == 2.0
    assert ResolvedLora.model_validate(filled_lora(rank=4).model_dump()) == filled_lora(rank=4)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0}, {"dropout": 1}, {"targets": "some"}, {"rnak": 4}])
def test_wrong_settings_are_refused_by_name(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        LoraConfig(**wrong)
