from __future__ import annotations

import json
import signal

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors import safe_open

from sdlora import StableDiffusion
from sdlora.data.snapshot import SnapshotRow
from sdlora.lora.formats.inspect import inspect_adapter
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.identity import run_digest
from sdlora.training.inputs.batches import BatchGroup, draw_step
from sdlora.training.inputs.encoded import EncodedRows, Resolution
from sdlora.training.inputs.order import EpochOrder
from sdlora.training.inputs.prior import encode_prior
from sdlora.training.inputs.prior_images import draw_prior_images, plan_prior_images
from sdlora.training.job import TrainingJob
from sdlora.training.judging.validation import FixedNoiseValidation
from sdlora.training.learning.loss import DenoisingLoss
from tests.families import build
from tests.settings import filled_lora, filled_training
from tests.unit.training.setting import CONFIG, LORA, Callbacks
from tests.unit.training.test_batches import UNIFORM
from tests.unit.training.written import contents

CPU = torch.device("cpu")
PRIOR = CONFIG.model_copy(
    update={
        "prior_weight": 0.5,
        "prior_prompts": ("a red circle", "a blue bar"),
        "prior_images": 6,
        "prior_batch_size": 3,
        "precision": "fp32",
        "resolutions": (64,),
    }
)

WEIGHTED = {"prior_weight": 1.0, "prior_prompts": ("a red circle",), "prior_images": 2}


pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_base_draws_its_prompts_in_turn_each_image_once(base, tmp_path):
    planned = plan_prior_images(base, PRIOR)
    assert [image.prompt for image in planned] == ["a red circle", "a blue bar"] * 3
    assert len({image.seed for image in planned}) == 6
    seen = []
    images = draw_prior_images(base, planned, PRIOR, tmp_path, CPU, lambda *call: seen.append(call))
    assert seen == [("draw prior images", 4, 6), ("draw prior images", 6, 6)]
    model = StableDiffusion.from_ref(base, precision="fp32")
    expected = model.generate([planned[1].prompt], [planned[1].seed], steps=20, guidance_scale=3.5)[0]
    assert (images[planned[1].key].int() - expected.int()).abs().max() <= 1  # batches round otherwise
    seen.clear()
    again = draw_prior_images(base, planned, PRIOR, tmp_path, CPU, lambda *call: seen.append(call))
    assert not seen
    assert all(torch.equal(again[key], image) for key, image in images.items())


def test_a_drawing_that_is_killed_goes_on_where_it_was_and_ends_with_the_same_images(base, tmp_path):
    planned = plan_prior_images(base, PRIOR)
    whole = draw_prior_images(base, planned, PRIOR, tmp_path / "whole", CPU)

    def die(_stage, done, _total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_prior_images(base, planned, PRIOR, tmp_path / "cut", CPU, die)
    seen = []
    resumed = draw_prior_images(base, planned, PRIOR, tmp_path / "cut", CPU, lambda *call: seen.append(call))
    assert seen == [("draw prior images", 2, 2)]
    assert all(torch.equal(resumed[key], image) for key, image in whole.items())


def test_a_damaged_image_is_drawn_again_and_what_decides_the_pixels_decides_the_name(base, tmp_path):
    planned = plan_prior_images(base, PRIOR)
    mapped = draw_prior_images(base, planned, PRIOR, tmp_path, CPU)
    whole = {key: image.clone() for key, image in mapped.items()}
    path = next((tmp_path / "cache" / "prior").rglob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    repaired = draw_prior_images(base, planned, PRIOR, tmp_path, CPU)
    assert all(torch.equal(repaired[key], image) for key, image in whole.items())
    keys = {image.key for image in planned}
    for change in ({"seed": 1}, {"prior_prompts": ("a ring",)}, {"precision": "bf16"}):
        assert not keys & {image.key for image in plan_prior_images(base, PRIOR.model_copy(update=change))}, change
    longer = plan_prior_images(base, PRIOR.model_copy(update={"prior_images": 9}))
    assert [image.key for image in longer[:4]] == [image.key for image in planned[:4]]  # those are not drawn again


def test_prior_images_are_encoded_at_every_resolution_with_their_prompt(base, tmp_path):
    config = PRIOR.model_copy(update={"resolutions": (64, 48), "horizontal_flip": True})
    encoded = encode_prior(base, config, tmp_path, CPU)
    assert [row.captions for row in encoded.rows[:2]] == [("a red circle",), ("a blue bar",)]
    assert {tuple(latents.shape) for latents in encoded.resolutions[0].latents.values()} == {(4, 16, 16)}
    assert {tuple(latents.shape) for latents in encoded.resolutions[1].mirrored.values()} == {(4, 12, 12)}
    assert encoded.embeddings.keys() == {"", "a red circle", "a blue bar"}
    assert encode_prior(base, CONFIG, tmp_path, CPU) is None


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_other_families_learn_from_prior_images_too(family, tmp_path):
    base = load_base_model(BaseModelConfig(source=str(build(family, tmp_path / family))), tmp_path / "home")
    config = filled_training(**WEIGHTED, batch_size=2)
    prior = encode_prior(base, config, tmp_path / "home", CPU)
    loss = DenoisingLoss.of_base(base, None, "fp32", CPU)
    group = BatchGroup(prior, EpochOrder(prior.shapes(), 2, 0), purpose="prior")
    (batch,) = draw_step([group], config, 0, loss.objective)
    assert loss.weighted(parts.load_denoiser(base), batch).isfinite()
    tokens = encode_prior(base, config, tmp_path / "home", CPU, tokens_only=True).embeddings["a red circle"]
    assert all(ids.dtype == torch.int64 for ids in tokens.values())


def made_up(name: str, count: int, side: int) -> EncodedRows:
    rows = tuple(SnapshotRow(f"{name}{index}", ("",), "train") for index in range(count))
    latents = {row.sha256: torch.full((4, side, side), float(index)) for index, row in enumerate(rows)}
    return EncodedRows(rows, (Resolution(latents),), {"": {"text": torch.zeros(3, 2)}})


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_step_takes_its_images_as_ever_and_prior_images_beside_them(processes):
    config = PRIOR.model_copy(update={"batch_size": 4})
    groups = [
        BatchGroup(images := made_up("image", 5, 2), EpochOrder(images.shapes(), 4, 0)),
        BatchGroup(prior := made_up("prior", 6, 3), EpochOrder(prior.shapes(), 3, 0), 0.5, "prior"),
    ]
    (alone,) = draw_step(groups[:1], config, 2, UNIFORM)
    batches = [batch for rank in range(processes) for batch in draw_step(groups, config, 2, UNIFORM, rank, processes)]
    ours, theirs = ([one for one in batches if one.latents.shape[-1] == side] for side in (2, 3))
    assert torch.equal(torch.cat([one.noise for one in ours]), alone.noise)  # what is learnt of them is the same
    assert torch.equal(torch.cat([one.timesteps for one in ours]), alone.timesteps)
    assert torch.cat([one.loss_weights for one in ours]).tolist() == [0.25] * 4
    assert torch.cat([one.loss_weights for one in theirs]).tolist() == pytest.approx([0.5 / 3] * 3)
    assert torch.cat([one.groups for one in theirs]).tolist() == [1] * 3


def test_prior_images_without_a_mask_count_everywhere():
    images, prior = made_up("image", 2, 2), made_up("prior", 2, 2)
    masks = {row.sha256: torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]) for row in images.rows}
    images = EncodedRows(images.rows, (Resolution(images.resolutions[0].latents, masks=masks),), images.embeddings)
    config = PRIOR.model_copy(update={"batch_size": 2, "prior_batch_size": 2, "masked_weight": 0.0})
    groups = [
        BatchGroup(images, EpochOrder(images.shapes(), 2, 0)),
        BatchGroup(prior, EpochOrder(prior.shapes(), 2, 0), purpose="prior"),
    ]
    (batch,) = draw_step(groups, config, 0, UNIFORM)
    assert batch.position_weights[0].flatten().tolist() == [4, 0, 0, 0]
    assert batch.position_weights[2].flatten().tolist() == [1, 1, 1, 1]


def test_a_run_with_prior_images_resumes_to_the_same_bytes_and_says_so_in_its_files(base, store, snapshot, run_folder):
    plain = fine_tune(
        TrainingJob(base, snapshot, LORA, CONFIG.model_copy(update={"precision": "fp32"}), run_folder / "plain"), store
    )
    pictures = []
    whole = fine_tune(
        TrainingJob(base, snapshot, LORA, PRIOR, run_folder / "whole"),
        store,
        Callbacks(on_samples=lambda *call: pictures.append(call)),
    )
    assert pictures == [(0, run_folder / "whole" / "prior-images.png")]
    sheet, images = Image.open(pictures[0][1]), encode_prior(base, PRIOR, store.home, CPU)
    assert sheet.size == (6 * 64, 64) and len(images.rows) == 6
    assert len({sheet.crop((64 * place, 0, 64 * place + 64, 64)).tobytes() for place in range(6)}) == 6
    assert not (run_folder / "plain" / "prior-images.png").exists()
    assert whole.digest != plain.digest

    def stop(step, values):
        if step == 3 and "loss" in values:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fine_tune(TrainingJob(base, snapshot, LORA, PRIOR, run_folder / "cut"), store, Callbacks(on_metrics=stop))
    resumed = fine_tune(TrainingJob(base, snapshot, LORA, PRIOR, run_folder / "cut"), store)
    assert contents(resumed.folder) == contents(whole.folder)
    with safe_open(whole.folder / "adapter.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert (metadata["ss_prior_loss_weight"], metadata["ss_num_reg_images"]) == ("0.5", "6")
    assert inspect_adapter(whole.folder / "adapter.safetensors").origin["prior images"] == "6"
    assert "prior images" not in inspect_adapter(plain.folder / "adapter.safetensors").origin
    written = json.loads((whole.folder / "adapter.json").read_text())
    assert written["training"]["prior_prompts"] == ["a red circle", "a blue bar"]
    assert not {row.sha256 for row in snapshot.rows} & {image.key for image in plan_prior_images(base, PRIOR)}
    points = [json.loads(line) for line in (run_folder / "whole" / "metrics.jsonl").read_text().splitlines()]
    first_of_plain = json.loads((run_folder / "plain" / "metrics.jsonl").read_text().splitlines()[1])
    assert points[1]["loss"] == pytest.approx(first_of_plain["loss"])  # of the images alone: runs can be compared
    assert len({point["prior_loss"] for point in points if "loss" in point}) == 6


def test_what_is_learnt_restores_the_prior_images_better_than_without_them(base, store, snapshot, run_folder):
    settings = {"steps": 60, "learning_rate": 0.03, "schedule": "constant", "precision": "fp32", "keep": "last"}
    settings["warmup_steps"] = 3
    without = CONFIG.model_copy(update=settings)
    with_prior = PRIOR.model_copy(update={**settings, "prior_weight": 1.0, "prior_batch_size": 4})
    prior = encode_prior(base, with_prior, store.home, CPU)
    loss = DenoisingLoss.of_base(base, None, "fp32", CPU)
    validation = FixedNoiseValidation(prior, loss, 0, 8, CPU)
    losses = []
    for name, config in (("without", without), ("with", with_prior)):
        adapter = fine_tune(TrainingJob(base, snapshot, LORA, config, run_folder / name), store)
        denoiser = StableDiffusion.from_ref(base, adapter, precision="fp32").denoiser
        losses.append(validation.measure(denoiser).mean().item())
    assert losses[1] < 0.95 * losses[0], losses


def test_prior_settings_name_the_run_only_where_they_count():
    lora = filled_lora()
    plain = filled_training(precision="fp32")
    of_prior = {"precision": "fp32", "prior_weight": 1.0, "prior_prompts": ("a dog",)}
    digests = {run_digest("base", "snapshot", lora, plain)}
    for change in (
        {},
        {"prior_weight": 0.5},
        {"prior_prompts": ("a cat",)},
        {"prior_images": 7},
        {"prior_batch_size": 2},
    ):
        digests.add(run_digest("base", "snapshot", lora, filled_training(**{**of_prior, **change})))
    assert len(digests) == 6
    assert run_digest("base", "snapshot", lora, filled_training(precision="fp32", prior_images=7)) in digests


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prior_weight": 1.0}, "prior_prompts: prior_weight 1 needs"),
        ({"prior_prompts": ("a dog",)}, "prior_weight: 1"),
    ],
)
def test_a_weight_without_prompts_and_prompts_without_a_weight_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        filled_training(**wrong)


def test_a_step_takes_a_quarter_as_many_prior_images_by_default(base, store):
    config = filled_training(batch_size=8, prior_weight=1.0, prior_prompts=("a dog",))
    assert config.images_per_step == 10
    assert config.model_copy(update={"prior_batch_size": 8}).images_per_step == 16
    assert filled_training(batch_size=2, prior_weight=1.0, prior_prompts=("a dog",)).images_per_step == 3
    assert filled_training(batch_size=8).images_per_step == 8
