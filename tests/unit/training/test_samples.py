from __future__ import annotations

import torch
from PIL import Image

from sdlora.training.fine_tuning import fine_tune
from sdlora.training.job import TrainingJob
from tests.unit.training.setting import CONFIG, LORA, Callbacks


def test_pictures_are_drawn_while_training_and_change_nothing_that_is_learnt(base, store, snapshot, run_folder):
    plain = fine_tune(TrainingJob(base, snapshot, LORA, CONFIG, run_folder / "plain"), store)
    config = CONFIG.model_copy(
        update={"sample_every_steps": 3, "sample_prompts": ("a red circle", "a blue bar"), "sample_inference_steps": 2}
    )
    seen = []
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with_samples = fine_tune(
        TrainingJob(base, snapshot, LORA, config, run_folder / "drawn"),
        store,
        Callbacks(on_samples=lambda *call: seen.append(call)),
    )
    assert torch.equal(torch.rand(1), expected)
    assert with_samples.digest == plain.digest
    folder = run_folder / "drawn" / "samples"
    assert sorted(path.name for path in folder.iterdir()) == [
        "animation.webp",
        "contact-sheet.png",
        "step-00000000.png",
        "step-00000003.png",
        "step-00000006.png",
    ]
    assert sorted({step for step, _ in seen}) == [0, 3, 6]
    assert {path.name for _, path in seen} >= {"contact-sheet.png", "animation.webp"}
    first, last = (Image.open(folder / f"step-0000000{step}.png") for step in (0, 6))
    assert first.size == (128, 64)
    assert first.tobytes() != last.tobytes()  # the adapter that is being trained draws
    sheet = Image.open(folder / "contact-sheet.png")
    assert sheet.size[0] == 3 * 64 and sheet.size[1] > 2 * 64
    assert Image.open(folder / "animation.webp").n_frames == 3
