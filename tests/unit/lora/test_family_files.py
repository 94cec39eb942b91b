"""Adapters of every family: both files mean what was trained, to the stock pipeline and by the names of other tools."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open

from sdlora.lora.attach import attach_lora
from sdlora.lora.load import load_adapter, open_adapter
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.models.stable_diffusion import StableDiffusion
from tests import families
from tests.settings import filled_lora
from tests.unit.lora.perturb import perturb_adapter
from tests.unit.lora.test_files import draw, save

FIRST_KOHYA_NAMES = {
    "sd2": "lora_unet_down_blocks_0_attentions_0_proj_in",
    "sdxl": "lora_unet_input_blocks_4_1_proj_in",
    "sd3": "lora_unet_joint_blocks_0_context_block_attn_qkv",
    "flux": "lora_unet_single_blocks_0_linear1",
}
# As sd-scripts writes them: `train_network.py`, and `library/sai_model_spec.py` with `library/sd3_utils.py`.
METADATA = {
    "sd2": ("True", "sd_v2_v", "networks.lora", "stable-diffusion-v2-768-v/lora", "diffusers"),
    "sdxl": (
        "False", "sdxl_base_v1-0", "networks.lora", "stable-diffusion-xl-v1-base/lora",
        "https://github.com/Stability-AI/generative-models",
    ),
    "sd3": ("False", "sd3", "networks.lora_sd3", "stable-diffusion-3-5-medium/lora", "diffusers"),
    "flux": (
        "False", "flux1", "networks.lora_flux", "flux-1-dev/lora", "https://github.com/black-forest-labs/flux",
    ),
}  # fmt: skip
METADATA_KEYS = (
    "ss_v2", "ss_base_model_version", "ss_network_module", "modelspec.architecture", "modelspec.implementation",
)  # fmt: skip


@pytest.mark.parametrize("name", list(families.BUILDERS))
def test_an_adapter_of_each_family_is_saved_loaded_and_merged(name, tmp_path):
    base = load_base_model(BaseModelConfig(source=str(families.build(name, tmp_path / name))), tmp_path)
    config = filled_lora(rank=2, alpha=3)
    model = StableDiffusion.from_ref(base, precision="fp32")
    before = draw(model)
    perturb_adapter(attach_lora(model.denoiser, config), scale=0.5)
    expected = draw(model)
    effect = (expected.int() - before.int()).abs().float().mean()
    assert effect > 1
    adapter = save(tmp_path / "adapter", model.denoiser, config, base)
    assert open_adapter(adapter.folder) == adapter

    def through_diffusers(file):
        fresh = StableDiffusion.from_ref(base, precision="fp32")
        fresh.pipeline().load_lora_weights(str(adapter.folder), weight_name=file, local_files_only=True)
        return draw(fresh)

    # Of sd-scripts' joined layers diffusers reads FLUX's, at their published widths only.
    readable = ["pytorch_lora_weights.safetensors"] + ["style.safetensors"] * (name in ("sd2", "sdxl"))
    drawings = [through_diffusers(file) for file in readable]
    reloaded = StableDiffusion.from_ref(base, precision="fp32")
    load_adapter(reloaded.denoiser, adapter, base)
    drawings += [draw(reloaded), draw(StableDiffusion.from_ref(base, adapter, precision="fp32"))]
    for drawn in drawings:  # a merged weight rounds unlike two weights side by side
        assert (drawn.int() - expected.int()).abs().float().mean() < 0.05 * effect
    with safe_open(adapter.folder / "style.safetensors", "pt") as file:
        layers = {key.split(".")[0] for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    assert FIRST_KOHYA_NAMES[name] in layers
    assert tuple(metadata[key] for key in METADATA_KEYS) == METADATA[name]
    assert torch.isfinite(expected.float()).all()
