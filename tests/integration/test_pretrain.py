from __future__ import annotations

from pathlib import Path

import pytest

from flows.pretrain import pretrain
from sdlora.core.files import file_sha256
from sdlora.models.stable_diffusion import StableDiffusion
from sdlora.pretraining.config import DecoderConfig, PretrainData, PretrainPlan
from tasks.form import PLAN
from tests.tiny import TINY


def plan(images: Path, processes: int) -> PretrainPlan:
    model = TINY.model_copy(update={"decoder": DecoderConfig(steps=2, batch_size=2)})
    data = PretrainData(sources=(str(images),), held_out_fraction=0.2)
    return PretrainPlan(name="own", data=data, model=model, processes=processes)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_collected_images_become_a_base_model_that_draws_and_is_made_once(
    first_images: Path, tmp_path: Path, processes: int
) -> None:
    base = pretrain(**PLAN.parameters(plan(first_images, processes)), home=tmp_path)
    assert StableDiffusion.from_ref(base).generate_image("a red circle", steps=2).size == (64, 64)
    weights = base.folder / "unet" / "diffusion_pytorch_model.safetensors"
    written, digest = weights.stat().st_mtime_ns, file_sha256(weights)

    again = pretrain(**PLAN.parameters(plan(first_images, processes)), home=tmp_path)

    assert again == base
    assert (weights.stat().st_mtime_ns, file_sha256(weights)) == (written, digest)
