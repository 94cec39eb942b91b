from __future__ import annotations

import json
import signal

import pytest
import torch
from pydantic import ValidationError

from sdlora import StableDiffusion
from sdlora.core.errors import TrainingError
from sdlora.data.pixels import load_images_uint8
from sdlora.models.features import ImageFeatures
from sdlora.records.choice import Choice
from sdlora.statistics.bootstrap import Resampled
from sdlora.statistics.distances import kid
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.identity import run_digest
from sdlora.training.job import TrainingJob
from sdlora.training.judging.choosing import Chooser
from sdlora.training.judging.drawn_validation import DrawnValidation
from sdlora.training.judging.validation_result import ValidationResult
from tests.settings import filled_lora, filled_training
from tests.unit.training.setting import CONFIG, LORA, Callbacks, as_snapshot, fill_store
from tests.unit.training.test_choosing import errors, weights

DRAWN = CONFIG.model_copy(update={"validation_images": 8, "precision": "fp32", "steps": 4, "validation_every_steps": 2})


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def held_out(filled, tmp_path_factory):
    """Ten images to train on, nine held out."""
    store, _ = filled
    rows = fill_store(store, tmp_path_factory.mktemp("more"), 19, seed=3).rows
    return as_snapshot(
        [type(row)(row.sha256, row.captions, "held_out" if i < 9 else "train") for i, row in enumerate(rows)]
    )


def curve(folder, *names):
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [tuple(point[name] for name in ("step", *names)) for point in points if names[0] in point]


def test_the_distance_is_that_of_images_drawn_from_the_held_out_captions(base, store, held_out):
    rows = list(held_out.held_out[:8])
    validation = DrawnValidation(base, rows, store, 0, "fp32")
    denoiser = StableDiffusion.from_ref(base, precision="fp32").denoiser
    found = validation.measure(denoiser)
    model = StableDiffusion.from_ref(base, precision="fp32")
    images = model.generate([row.captions[0] for row in rows], validation.seeds, steps=12, guidance_scale=3.5)
    features = ImageFeatures()
    expected = kid(features(load_images_uint8(store, rows, 64)), features(images))
    assert found.value == pytest.approx(expected, rel=1e-4)
    assert found.estimate.low < found.value < found.estimate.high
    again = validation.measure(denoiser)
    assert again.minus(found) == found.minus(again)  # the same noise and resamples: no difference at all
    assert found.minus(again).low == found.minus(again).high == 0


def test_measuring_images_changes_nothing_that_is_learnt_and_gives_a_curve(base, store, held_out, run_folder):
    plain = fine_tune(
        TrainingJob(base, held_out, LORA, DRAWN.model_copy(update={"validation_images": None}), run_folder / "a"), store
    )
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    measured = fine_tune(TrainingJob(base, held_out, LORA, DRAWN, run_folder / "b"), store)
    assert torch.equal(torch.rand(1), expected)
    assert measured.digest == plain.digest
    points = curve(run_folder / "b", "validation_kid", "validation_kid_low", "validation_kid_high", "validation_loss")
    assert [point[0] for point in points] == [0, 2, 4]
    assert all(low < value < high for _, value, low, high, _ in points)
    assert len({value for _, value, *_ in points}) == 3  # the adapter that learns is what draws
    assert curve(run_folder / "a", "validation_loss") == curve(run_folder / "b", "validation_loss")
    choice = Choice.model_validate_json((run_folder / "b" / "choice.json").read_text())
    assert choice.by == "loss" and choice.validation_kid is not None
    assert "KID of drawn captions" in choice.in_words()


def test_the_adapter_kept_by_kid_is_the_one_of_least_kid_however_the_run_was_interrupted(
    base, store, held_out, run_folder
):
    config = DRAWN.model_copy(update={"keep_by": "kid", "learning_rate": 0.03, "schedule": "constant"})
    whole = fine_tune(TrainingJob(base, held_out, LORA, config, run_folder / "whole"), store)
    choice = Choice.model_validate_json((run_folder / "whole" / "choice.json").read_text())
    distances = {step: value for step, value in curve(run_folder / "whole", "validation_kid") if step}
    assert choice.step == min(distances, key=distances.get)
    assert choice.validation_kid.value == distances[choice.step]
    assert "(best by KID)" in choice.in_words()

    def stop(step, values):
        if step == 3 and "loss" in values:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fine_tune(TrainingJob(base, held_out, LORA, config, run_folder / "cut"), store, Callbacks(on_metrics=stop))
    resumed = fine_tune(TrainingJob(base, held_out, LORA, config, run_folder / "cut"), store)
    assert resumed.digest == whole.digest
    names = "validation_kid", "validation_kid_low", "validation_loss"
    assert curve(run_folder / "cut", *names) == curve(run_folder / "whole", *names)
    assert (run_folder / "cut" / "choice.json").read_text() == (run_folder / "whole" / "choice.json").read_text()


def test_a_chooser_by_kid_prefers_the_least_kid_and_stops_on_its_evidence(tmp_path):
    config = filled_training(steps=100, validation_images=32, keep_by="kid", early_stop_patience=2)
    spread = torch.linspace(-0.1, 0.1, 200, dtype=torch.float64)
    chooser = Chooser(tmp_path, config)
    for number, distance in enumerate([0.9, 0.4, 0.7, 0.8]):
        loss = errors(-0.1 * number)  # the loss falls all the while
        chooser.consider(
            ValidationResult(10 * number, loss, kid=Resampled(distance, distance + spread)), weights(number)
        )
    assert (chooser.best.step, chooser.runner_up.step) == (10, 20)
    assert chooser.should_stop
    choice = chooser.choice(30)
    assert choice.against_last.value == pytest.approx(-0.4)
    restored = Chooser(tmp_path, config)
    restored.restore(json.loads(json.dumps(chooser.state())))
    assert restored.choice(30) == choice


def test_kid_without_images_and_too_few_held_out_images_are_refused(base, store, snapshot, run_folder):
    with pytest.raises(ValidationError, match="keep_by: kid is measured on drawn images"):
        filled_training(keep_by="kid")
    with pytest.raises(TrainingError, match=r"training\.validation_images: 8 .* holds out 3, too few"):
        fine_tune(TrainingJob(base, snapshot, LORA, DRAWN, run_folder), store)


def test_drawn_images_name_the_run_only_where_they_choose():
    def digest(**changes):
        return run_digest("base", "snapshot", filled_lora(), filled_training(**changes))

    assert digest(validation_images=32) == digest()
    assert digest(validation_images=32, keep_by="kid") != digest()
    assert digest(validation_images=32, keep_by="kid") != digest(validation_images=16, keep_by="kid")
    assert digest(validation_images=32, keep_by="kid", keep="last") == digest(keep="last")
    stopping = {"keep": "last", "early_stop_patience": 2}
    assert digest(validation_images=32, keep_by="kid", **stopping) != digest(**stopping)
