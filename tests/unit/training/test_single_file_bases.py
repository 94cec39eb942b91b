"""A base in its original single-file form, from loading to the merged file: what its users have, and get."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.models.stable_diffusion import StableDiffusion
from sdlora.release.exporting import export_model
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.job import TrainingJob
from tests import comfyui, families, original
from tests.settings import filled_lora
from tests.unit.models.test_single_file import settings_of
from tests.unit.training.setting import CONFIG, Callbacks
from tests.unit.training.test_fine_tuning import contents, interrupt_at

LORA = filled_lora(rank=2, alpha=3, targets="attention+ff")
STEPS = CONFIG.model_copy(update={"steps": 3, "precision": "fp32", "learning_rate": 0.05})
WRITERS = {"sd3": original.write_version_3_checkpoint, "flux": original.write_flux_checkpoint}


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_checkpoint_is_trained_resumed_and_comes_back_as_one_with_what_comfyui_would_add(
    name, store, snapshot, tmp_path
):
    folder = families.build(name, tmp_path / "folder")
    file = WRITERS[name](folder, tmp_path / "base.safetensors")
    layout = str(settings_of(folder, tmp_path / "layout"))

    with original.flux_of_width(32):
        base = load_base_model(BaseModelConfig(source=str(file), layout=layout), tmp_path / "home")
        adapter = fine_tune(TrainingJob(base, snapshot, LORA, STEPS, tmp_path / "whole", name="style"), store)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(
                TrainingJob(base, snapshot, LORA, STEPS, tmp_path / "cut", name="style"),
                store,
                Callbacks(on_metrics=interrupt_at(1)),
            )
        resumed = fine_tune(TrainingJob(base, snapshot, LORA, STEPS, tmp_path / "cut", name="style"), store)
        merged = export_model(base, adapter, tmp_path / "merged.safetensors")
        again = load_base_model(BaseModelConfig(source=str(merged), layout=layout), tmp_path / "home")
    assert contents(resumed.folder) == contents(adapter.folder)

    # ComfyUI's reading of the adapter, added to the base's file, is the merged file.
    reading = comfyui.read(adapter.folder / "style.safetensors", parts.load_denoiser(base))
    assert reading.not_loaded == [] and len(reading.changes) > 10
    before, after = load_file(file), load_file(merged)
    assert after.keys() == before.keys()
    for key, tensor in before.items():
        expected = tensor + reading.changes[key] if key in reading.changes else tensor
        torch.testing.assert_close(after[key].reshape(tensor.shape), expected, atol=1e-6, rtol=1e-5)
    assert all((after[key] - before[key]).abs().max() > 1e-4 for key in reading.changes)

    drawn = [
        StableDiffusion.from_ref(*model, precision="fp32").generate(["a red circle"], [1], steps=2).int()
        for model in ((base,), (base, adapter), (again,))
    ]
    assert (drawn[1] - drawn[0]).abs().max() > 1
    assert (drawn[2] - drawn[1]).abs().max() <= 1
